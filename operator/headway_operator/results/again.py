"""A trial's TrainingJob to run once more, outside of the sweep."""

from __future__ import annotations

from headway_api import contract
from headway_operator.cluster.client import Object
from headway_operator.resources import TRAINING_JOB
from headway_operator.results.findings import Findings, Result
from headway_operator.sweep import template


def manifest(found: Findings, result: Result) -> Object:
    """The TrainingJob of a trial's first run, with its parameters and its seed.

    It has a name of its own, and neither the sweep's labels nor its owner: as a trial it would be
    the sweep's to stop and to delete. It trains from the start to the end.

    Raises:
        headway_operator.trainingjob.stuck.Stuck: the template makes none of these parameters.
    """
    sweep = found.sweep
    run = template.Run(sweep.name, result.index, 0, template.seed_of(sweep.seed, 0))
    given = sweep.spec.template.metadata
    labels, notes = (given and given.labels) or {}, (given and given.annotations) or {}
    return {
        "apiVersion": contract.API_VERSION,
        "kind": TRAINING_JOB.kind,
        "metadata": {
            "name": f"{run.name}-again"[: contract.MAX_JOB_NAME].rstrip("-"),
            "namespace": sweep.namespace,
            **({"labels": dict(labels)} if labels else {}),
            **({"annotations": dict(notes)} if notes else {}),
        },
        "spec": template.filled(sweep.spec, run, result.params),
    }
