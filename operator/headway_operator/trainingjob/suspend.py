"""Giving up all pods, and coming back with a new attempt."""

from __future__ import annotations

from dataclasses import dataclass

from headway_api.trainingjob import Phase
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


@dataclass(frozen=True)
class Rest:
    """Why a job has no pods, and is to have none.

    Attributes:
        phase: of the job once they are gone.
        reason: of the condition `Suspended`.
        message: the same for people.
        saving: a sentence for them while there are pods.
    """

    phase: Phase
    reason: str
    message: str
    saving: str = ""


def suspended(here: Situation) -> Plan:
    """The plan of a job that is suspended, or has come to the step at which it pauses."""
    if here.spec.suspend:
        return resting(here, Rest("Suspended", "Suspended", _RESTING))
    said = f"The job has paused after step {here.status.paused_at_step}, as pauseAtStep asks; "
    said += "raise it or remove it to go on from there."
    return resting(here, Rest("Suspended", PAUSED_AT_STEP, said))


def resting(here: Situation, rest: Rest) -> Plan:
    """The plan of a job that is to rest: pods get their grace period, and nothing counts."""
    pods = here.view.pods
    if pods:
        saving = f"{rest.saving} {_SAVING}".strip()
        status = revised(
            here.status,
            [
                Claim("Suspended", False, "Suspending", saving),
                Claim("Reconciling", True, "Suspending", saving),
                Claim("Stalled", False, "Suspending"),
            ],
            generation=here.generation,
            now=here.now,
            reason="Suspending",
            message=saving,
            **counts(here.group()),
        )
    else:
        status = revised(
            here.status,
            [
                Claim("Suspended", True, rest.reason, rest.message),
                Claim("Running", False, rest.reason),
                Claim("Reconciling", False, rest.reason),
                Claim("Stalled", False, rest.reason),
            ],
            generation=here.generation,
            now=here.now,
            phase=rest.phase,
            reason=rest.reason,
            message=rest.message,
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
        **{
            **fields,
            "paused_at_step": None,
            "start_time": timestamp(here.now),
            "phase": "Starting",
        },
    )
    return here.with_status(status, new_attempt=True)
