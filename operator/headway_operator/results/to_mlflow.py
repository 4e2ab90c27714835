"""Results into MLflow: an experiment for the sweep, a run for each trial."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, Final

from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings, Result
from headway_operator.sweep.space import text

_SWEEP, _TRIAL = "headway.sweep", "headway.trial"
"""Tags of a run: the UID of its sweep, and its number."""
_PAGE: Final = 1000


def to_mlflow(found: Findings, uri: str) -> int:
    """Write an experiment that is named like the sweep.

    A run is known by its tags: one that had ended when it was written is not touched again, one
    that had not gets the points that are new. Writing twice doubles nothing.

    Args:
        found: the sweep.
        uri: of the tracking server or store, as MLFLOW_TRACKING_URI has it.

    Returns:
        How many trials were written.

    Raises:
        ResultsError: MLflow is missing, or refuses.
    """
    try:
        from mlflow import MlflowClient  # noqa: PLC0415
        from mlflow.exceptions import MlflowException  # noqa: PLC0415
    except ImportError:
        raise ResultsError("MLflow is not installed: pip install mlflow") from None
    try:
        client = MlflowClient(tracking_uri=uri)
        known = client.get_experiment_by_name(found.sweep.name)
        place = known.experiment_id if known else client.create_experiment(found.sweep.name)
        runs = dict(_runs(client, place, found.sweep.uid))
        return sum(_written(client, place, found, each, runs) for each in found.results)
    except MlflowException as error:
        raise ResultsError(f"MLflow at {uri} refuses: {error}") from None


def _runs(client: Any, place: str, uid: str) -> Iterator[tuple[str, Any]]:
    """The runs that there are of this sweep, by the number of their trial."""
    token = None
    while True:
        wanted = f"tags.`{_SWEEP}` = '{uid}'"
        page = client.search_runs([place], wanted, max_results=_PAGE, page_token=token)
        yield from ((run.data.tags.get(_TRIAL, ""), run) for run in page)
        token = page.token
        if not token:
            return


def _written(
    client: Any, place: str, found: Findings, result: Result, runs: Mapping[str, Any]
) -> bool:
    """Write one trial, if there is anything new of it."""
    from mlflow.entities import Metric, Param, RunTag  # noqa: PLC0415

    run = runs.get(str(result.index))
    if run is not None and run.info.status != "RUNNING":
        return False
    began = result.started or found.now
    if run is None:
        tags = {_SWEEP: found.sweep.uid, _TRIAL: str(result.index)}
        run = client.create_run(place, _milliseconds(began), tags, result.name)
    number = run.info.run_id
    last = {
        name: max((each.step for each in client.get_metric_history(number, name)), default=-1)
        for name in run.data.metrics
    }
    client.log_batch(
        number,
        metrics=[
            Metric(name, value, _milliseconds(began), step)
            for name, step, value in _metrics(found, result)
            if step > last.get(name, -1)
        ],
        params=[Param(name, text(value)) for name, value in result.params.items()],
        tags=[RunTag(name, said) for name, said in _tags(result)],
    )
    if result.settled:
        status = "FAILED" if result.state == "Failed" else "FINISHED"
        client.set_terminated(number, status, _milliseconds(result.ended or found.now))
    return True


def _metrics(found: Findings, result: Result) -> Iterator[tuple[str, int, float]]:
    """The course of each objective, and in the end what the trial counts with."""
    for place, objective in enumerate(found.spec.objectives):
        name = re.sub(r"[^\w./ -]", "_", objective.metric)  # MLflow takes no others
        for point in result.course(objective.metric):
            yield name, point.step, point.value
        if result.settled and result.values is not None:
            yield f"objective.{name}", result.trial.step, result.values[place]


def _tags(result: Result) -> Iterator[tuple[str, str]]:
    yield "headway.state", result.state
    yield "headway.job", result.name
    if result.checkpoint:
        yield "headway.checkpoint", result.checkpoint
    if result.why:
        yield "headway.why", result.why


def _milliseconds(moment: datetime) -> int:
    return int(moment.astimezone(UTC).timestamp() * 1000)
