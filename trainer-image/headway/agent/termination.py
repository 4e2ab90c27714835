"""An agent's last words: they reach the operator in the pod's status, whatever else is down."""

from __future__ import annotations

import logging
from pathlib import Path

from headway_api.messages import TerminationReport

log = logging.getLogger(__name__)
LIMIT = 4096
"""Bytes that the kubelet keeps of a termination log."""


def fit(report: TerminationReport) -> str:
    """The report as JSON within the kubelet's limit: messages are shortened, facts are kept."""
    for longest in (2000, 1000, 300, 60):
        culprit = report.culprit
        if culprit is not None:
            culprit = culprit.model_copy(update={"message": culprit.message[-longest:]})
        progress = report.progress
        if progress is not None:
            last = progress.last_restart
            if last is not None:
                last = last.model_copy(update={"message": last.message[-min(longest, 300) :]})
            progress = progress.model_copy(
                update={"events": [], "silent": [], "last_restart": last}
            )
        text = report.model_copy(
            update={
                "message": report.message[-longest:],
                "culprit": culprit,
                "progress": progress,
            }
        ).model_dump_json(by_alias=True, exclude_none=True)
        if len(text.encode()) <= LIMIT:
            return text
    slim = report.model_copy(update={"progress": None, "culprit": None, "message": ""})
    return slim.model_dump_json(by_alias=True, exclude_none=True)


def write(path: Path, report: TerminationReport) -> None:
    """Leave the report for the kubelet."""
    try:
        path.write_text(fit(report))
    except OSError as error:
        log.warning("could not write %s: %s", path, error)
