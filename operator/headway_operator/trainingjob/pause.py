"""`spec.pauseAtStep`: the agents stop by themselves; that they did is remembered here."""

from __future__ import annotations

from headway_api.contract import ExitCode
from headway_operator.trainingjob.situation import Situation
from headway_operator.trainingjob.view import Pod


def noted(here: Situation) -> Situation:
    """The situation with a pause in its status, if the lead has ended for one.

    The pods that show it are about to be removed; from then on only the status knows.
    """
    lead = here.group().lead
    step = _paused_after(lead) if lead is not None else None
    if step is None:
        return here
    status = here.status.model_copy(update={"paused_at_step": step})
    return here.with_status(status, new_attempt=False)


def rests(here: Situation) -> bool:
    """Whether a job that has paused stays so: it goes on when the step is raised or removed."""
    reached, until = here.status.paused_at_step, here.spec.pause_at_step
    return reached is not None and until is not None and until <= reached


def _paused_after(lead: Pod) -> int | None:
    """The step; None too for a lead whose last words are lost: a new one pauses there again."""
    if lead.phase != "Failed" or lead.exit_code != ExitCode.PAUSED:
        return None
    if lead.report is None or lead.report.progress is None:
        return None
    return lead.report.progress.step
