"""Which TrainingJobs of ended trials may go: their records are written first."""

from __future__ import annotations

from collections.abc import Sequence

from headway_operator.sweep.ranking import ranked
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.view import RunJob


def due(here: Situation) -> tuple[tuple[RunJob, ...], tuple[RunJob, ...]]:
    """Runs to record now, and recorded ones to delete now.

    Of the ended trials the best `retention.keep` stay, and those that are still saving.
    """
    keep = here.spec.retention.keep
    if keep is None:
        return (), ()
    kept = {trial.index for trial in ranked(here.spec, here.trials)[:keep]}
    record: list[RunJob] = []
    delete: list[RunJob] = []
    for each in here.runs:
        if not each.trial.ended or each.trial.index in kept or not _settled(each.jobs):
            continue
        (delete if each.recorded else record).extend(job for job in each.jobs if not job.deleting)
    return tuple(record), tuple(delete)


def _settled(jobs: Sequence[RunJob]) -> bool:
    """Whether nothing of these runs is under way: a stopped one saves before its pods go."""
    return all(job.phase in {"Succeeded", "Failed", "Suspended"} for job in jobs)
