"""The TrainingJobs of configurations that are known."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from headway_api import contract
from headway_operator.resources import TRAINING_JOB
from headway_operator.sweep import template
from headway_operator.sweep.records import owner
from headway_operator.sweep.trial import Scalar
from headway_operator.sweep.view import Sweep


def training_job(
    sweep: Sweep,
    index: int,
    number: int,
    params: Mapping[str, Scalar],
    attrs: Mapping[str, Any],
    until: int | None,
    resume_from: str | None = None,
) -> dict[str, Any]:
    """The TrainingJob of a run.

    Args:
        sweep: whose trial it is.
        index: of the configuration.
        number: which of its repeats.
        params: active parameters, typed.
        attrs: what algorithm and rules have to know of it later.
        until: the step at which it pauses.
        resume_from: the checkpoint of another trial that it starts from.

    Raises:
        Stuck: the template makes no TrainingJob of this configuration.
    """
    run = template.Run(sweep.name, index, number, template.seed_of(sweep.seed, number))
    spec = template.filled(sweep.spec, run, params)
    template.validated(spec)
    spec["observe"] = {"metrics": [objective.metric for objective in sweep.spec.objectives]}
    if until is not None:
        spec["pauseAtStep"] = until
    if resume_from is not None:
        spec["checkpoint"] = {**(spec.get("checkpoint") or {}), "resumeFrom": resume_from}
    given = sweep.spec.template.metadata
    told = json.dumps({"params": dict(params), "attrs": dict(attrs)}, sort_keys=True)
    return {
        "apiVersion": contract.API_VERSION,
        "kind": TRAINING_JOB.kind,
        "metadata": {
            "name": run.name,
            "namespace": sweep.namespace,
            "labels": {
                **((given and given.labels) or {}),
                contract.LABEL_SWEEP: sweep.name,
                contract.LABEL_TRIAL: str(index),
                contract.LABEL_RUN: str(number),
            },
            "annotations": {
                **((given and given.annotations) or {}),
                contract.ANNOTATION_TRIAL: told,
            },
            "ownerReferences": [owner(sweep)],
        },
        "spec": spec,
    }
