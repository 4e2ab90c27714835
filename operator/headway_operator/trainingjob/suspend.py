"""Giving up all pods, and coming back with a new attempt."""

from __future__ import annotations

from headway_operator.trainingjob.conditions import Claim
from headway_operator.trainingjob.nodes import removals
from headway_operator.trainingjob.plan import Plan
from headway_operator.trainingjob.situation import Situation
from headway_operator.trainingjob.status import counts, paused, revised, suspending
from headway_operator.trainingjob.times import timestamp

PAUSED_AT_STEP = "PausedAtStep"
"""Reason of a job that rests for `spec.pauseAtStep`."""
_SAVING = "The workers save their state and end."
_RESTING = "The job is suspended; set suspend: false to go on from its newest checkpoint."


def suspended(here: Situation) -> Plan:
    """The plan of a job that is to rest: pods get their grace period, and nothing counts."""
    pods = here.view.pods
    resting, message = _why(here)
    if pods:
        status = revised(
            here.status,
            [
                Claim("Suspended", False, "Suspending", _SAVING),
                Claim("Reconciling", True, "Suspending", _SAVING),
                Claim("Stalled", False, "Suspending"),
            ],
            generation=here.generation,
            now=here.now,
            reason="Suspending",
            message=_SAVING,
            **counts(here.group()),
        )
    else:
        status = revised(
            here.status,
            [
                Claim("Suspended", True, resting, message),
                Claim("Running", False, resting),
                Claim("Reconciling", False, resting),
                Claim("Stalled", False, resting),
            ],
            generation=here.generation,
            now=here.now,
            phase="Suspended",
            reason=resting,
            message=message,
            **paused(here.status, here.now),
            **counts(here.group()),
        )
    # Remembered first: whatever these pods end with from now on is our doing.
    return here.plan(
        status, delete=removals(pods, here.view, here.now, here.grace), status_first=True
    )


def _why(here: Situation) -> tuple[str, str]:
    """Reason and message of a job that rests."""
    if here.spec.suspend:
        return "Suspended", _RESTING
    said = f"The job has paused after step {here.status.paused_at_step}, as pauseAtStep asks; "
    return PAUSED_AT_STEP, said + "raise it or remove it to go on from there."


def resumed(here: Situation) -> Situation:
    """The situation with a suspension taken back: its pods, should any be left, are old ones."""
    if not suspending(here.status):
        return here
    fields = paused(here.status, here.now)
    if here.status.attempt is not None:
        fields["attempt"] = here.status.attempt + 1
    if here.status.restarts is not None:
        fields["restarts"] = here.status.restarts.model_copy(update={"handled_pods": None})
    status = revised(
        here.status,
        [Claim("Suspended", False, "Resumed", "")],
        generation=here.generation,
        now=here.now,
        **{
            **fields,
            "paused_at_step": None,
            "start_time": timestamp(here.now),
            "phase": "Starting",
        },
    )
    return here.with_status(status, new_attempt=True)
