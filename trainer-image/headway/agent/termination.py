"""An agent's last words: they reach the operator in the pod's status, whatever else is down."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

from headway_api.messages import ProgressReport, RestartReport, TerminationReport
from headway_api.observations import MOST_POINTS, shortened

log = logging.getLogger(__name__)
LIMIT = 4096
"""Bytes that the kubelet keeps of a termination log."""


def fit(report: TerminationReport) -> str:
    """The report as JSON within the kubelet's limit.

    Texts are shortened first, then curves, which earlier reports have told for the most part; then
    goes what other ways have told, and last the culprit. Facts that only this report has are kept.
    """
    for slim in _ever_slimmer(report):
        text = slim.model_dump_json(by_alias=True, exclude_none=True)
        if len(text.encode()) <= LIMIT:
            return text
    bare = report.model_copy(update={"progress": None, "culprit": None, "message": ""})
    return bare.model_dump_json(by_alias=True, exclude_none=True)


def _ever_slimmer(report: TerminationReport) -> Iterator[TerminationReport]:
    progress = report.progress and _without_asides(report.progress)
    for longest in (2000, 1000, 300):
        yield _with(report, _shortened(progress, longest, MOST_POINTS), longest)
    for points in (32, 16, 8, 0):
        yield _with(report, _shortened(progress, 60, points), 60)
    slim = _shortened(progress, 0, 0)
    if slim is not None:
        slim = slim.model_copy(update={"metrics": {}, "last_restart": None, "fallback": None})
    yield _with(report, slim, 60)
    yield _with(report, slim, 0).model_copy(update={"culprit": None})
    if slim is not None:
        slim = slim.model_copy(update={"observations": [], "checkpoint": None})
    yield _with(report, slim, 0).model_copy(update={"culprit": None})


def _without_asides(progress: ProgressReport) -> ProgressReport:
    """What nobody misses in a report that is the last."""
    saved = progress.checkpoint and progress.checkpoint.model_copy(update={"metrics": {}})
    return progress.model_copy(update={"events": [], "silent": [], "checkpoint": saved})


def _with(
    report: TerminationReport, progress: ProgressReport | None, longest: int
) -> TerminationReport:
    culprit = report.culprit and _cut(report.culprit, longest)
    message = _end(report.message, longest)
    return report.model_copy(update={"message": message, "culprit": culprit, "progress": progress})


def _shortened(progress: ProgressReport | None, longest: int, points: int) -> ProgressReport | None:
    if progress is None:
        return None
    last = progress.last_restart and _cut(progress.last_restart, min(longest, 300))
    courses = [shortened(each, points) for each in progress.observations]
    return progress.model_copy(update={"last_restart": last, "observations": courses})


def _cut(restart: RestartReport, longest: int) -> RestartReport:
    return restart.model_copy(update={"message": _end(restart.message, longest)})


def _end(text: str, longest: int) -> str:
    """The last characters of a text."""
    return text[-longest:] if longest else ""


def write(path: Path, report: TerminationReport) -> None:
    """Leave the report for the kubelet."""
    try:
        path.write_text(fit(report))
    except OSError as error:
        log.warning("could not write %s: %s", path, error)
