"""Giving up all pods, and coming back with a new attempt."""

from __future__ import annotations

from headway_operator.trainingjob.conditions import Claim
from headway_operator.trainingjob.nodes import removals
from headway_operator.trainingjob.plan import Plan
from headway_operator.trainingjob.situation import Situation
from headway_operator.trainingjob.status import counts, paused, revised, suspending
from headway_operator.trainingjob.times import timestamp

_SAVING = "The workers save their state and end."
_RESTING = "The job is suspended; set suspend: false to go on from its newest checkpoint."


def suspended(here: Situation) -> Plan:
    """The plan of a job that is to rest: pods get their grace period, and nothing counts."""
    pods = here.view.pods
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
                Claim("Suspended", True, "Suspended", _RESTING),
                Claim("Running", False, "Suspended"),
                Claim("Reconciling", False, "Suspended"),
                Claim("Stalled", False, "Suspended"),
            ],
            generation=here.generation,
            now=here.now,
            phase="Suspended",
            reason="Suspended",
            message=_RESTING,
            **paused(here.status, here.now),
            **counts(here.group()),
        )
    # Remembered first: whatever these pods end with from now on is our doing.
    return here.plan(
        status, delete=removals(pods, here.view, here.now, here.grace), status_first=True
    )


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
        **{**fields, "start_time": timestamp(here.now), "phase": "Starting"},
    )
    return here.with_status(status, new_attempt=True)
