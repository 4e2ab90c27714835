"""The restart budget: each restart counted once, whatever crashes or is delivered twice."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

from headway_api.failure import INFRASTRUCTURE, Decision
from headway_api.messages import ProgressReport, RestartReport
from headway_api.trainingjob import LastRestart, LeadRestarts, Restarts, TrainingJobStatus
from headway_operator.trainingjob.avoidance import remembered
from headway_operator.trainingjob.failure import Loss
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.times import parsed, timestamp
from headway_operator.trainingjob.view import Pod

SHORT_LIFE: Final = 60.0
"""Seconds: a pod that lived less makes the next wait before it is made again."""
LONGEST_WAIT: Final = 60.0
"""Seconds between the restarts of a group that never gets far."""
LONGEST_WAIT_TAKEN_AWAY: Final = 5.0
"""The same for pods that were taken away: they have not failed, and a series of preemptions is
none of crashes. Long enough that a node which evicts whatever comes makes no hot loop."""
UNNOTICED: Final = timedelta(seconds=10)
"""After which a lead's word that it waits is no longer one from before a worker's end."""
_MESSAGE = 4096


def taken_over(
    status: TrainingJobStatus, report: ProgressReport, attempt: int, maximum: int
) -> tuple[Restarts, bool]:
    """The counts with the lead's restarts in place added; whether they go beyond the budget.

    A lead reports how many there were in its session so far. Of a session that we know, the
    difference is new. A session that we don't know is new, unless it is one from before: a new
    lead's generations are higher than any that we had heard of.
    """
    restarts = status.restarts or Restarts()
    known = restarts.lead
    if known is None or known.session != report.session:
        if report.attempt != attempt or report.generation < (status.generation or 0):
            return restarts, False
        if report.restarts_total and report.generation == status.generation:
            return restarts, False
        known = LeadRestarts(session=report.session)
    more = max(0, report.restarts_total - known.total)
    counting = max(0, report.restarts_counted - known.counted)
    counted = restarts.counted + counting
    lead = LeadRestarts(
        session=report.session, total=known.total + more, counted=known.counted + counting
    )
    update = {
        "total": restarts.total + more,
        "counted": max(restarts.counted, min(counted, maximum)),
        "lead": lead,
        "last": _in_place(report.last_restart) if more and report.last_restart else restarts.last,
    }
    return restarts.model_copy(update=update), bool(counting) and counted > maximum


def accounted(
    restarts: Restarts,
    group: Group,
    found: tuple[Loss, ...],
    blamed: Loss,
    now: datetime,
    decision: Decision | None,
) -> Restarts:
    """The counts after one restart by new pods.

    Args:
        restarts: so far.
        group: as it was found.
        found: the pods lost together.
        blamed: the first culprit among them.
        now: the time.
        decision: what the failure rules say; None where this belongs to the restart under way.
    """
    replaced = {loss.uid for loss in found if loss.uid} | group.handled
    # Who is done already has to take part again: the others can't go on without it.
    replaced |= {pod.uid for pod in group.members if pod.ended}
    silent = {loss.silent_node for loss in found if loss.silent_node}
    update: dict[str, object] = {
        "handled_pods": sorted(replaced) or None,
        "silent_nodes": remembered(restarts, now, silent),
    }
    if decision is not None:
        update["total"] = restarts.total + 1
        update["counted"] = restarts.counted + (1 if decision.counts else 0)
        update["last"] = LastRestart(
            time=timestamp(now),
            reason=blamed.failure.reason[:256],
            worker=blamed.index,
            rank=blamed.rank,
            exit_code=blamed.failure.exit_code,
            message=blamed.message[:_MESSAGE],
            rule=decision.rule,
        )
    return restarts.model_copy(update=update)


def left_behind(group: Group, report: ProgressReport | None, now: datetime) -> frozenset[str]:
    """UIDs of workers that ended well with a lead that is gone: the new one waits for them.

    Who has ended before the lead's container began was not sent home by it, even if its pod was
    made before that. Who ends later may still have been sent home by the one before: then the
    lead says that it waits, and goes on saying so.
    """
    lead = group.lead
    return frozenset(
        pod.uid
        for pod, end in _done_early(group)
        if (lead is not None and (lead.started is None or lead.started > end))
        or (_waits(report) and now >= end + UNNOTICED)
    )


def left_behind_times(group: Group, report: ProgressReport | None) -> list[datetime]:
    """When workers that ended well under a lead that waits count as left behind."""
    return [end + UNNOTICED for _, end in _done_early(group) if _waits(report)]


def _done_early(group: Group) -> list[tuple[Pod, datetime]]:
    """Workers that ended well while their lead is still there, and when."""
    if group.lead is None or group.lead.ended:
        return []
    return [
        (pod, pod.finished)
        for pod in group.standing
        if pod.phase == "Succeeded" and pod.finished is not None
    ]


def _waits(report: ProgressReport | None) -> bool:
    return report is not None and report.state == "Waiting"


def replace_at(pod: Pod, restarts: Restarts | None) -> datetime | None:
    """When a lost pod may be replaced; None for at once.

    Waits of 0, 1, 2, 4 … seconds after pods that lived only shortly, by the count of restarts.
    """
    last = restarts.last if restarts is not None else None
    if restarts is None or last is None or not pod.ended:
        return None
    lived = 0.0
    if pod.started is not None and pod.finished is not None:
        lived = (pod.finished - pod.started).total_seconds()
    if lived >= SHORT_LIFE or restarts.total < 2:
        return None
    decided = parsed(last.time)
    assert decided is not None
    longest = LONGEST_WAIT_TAKEN_AWAY if last.reason in INFRASTRUCTURE else LONGEST_WAIT
    wait = min(2.0 ** min(restarts.total - 2, 16), longest)
    return decided + timedelta(seconds=wait)


def _in_place(report: RestartReport) -> LastRestart:
    return LastRestart(
        time=report.time,
        reason=report.reason[:256],
        worker=report.worker,
        rank=report.rank,
        exit_code=report.exit_code,
        message=report.message[:_MESSAGE],
        rule=report.rule,
    )
