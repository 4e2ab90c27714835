"""Conditions: `lastTransitionTime` moves only when `status` does."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import Final, Literal

from headway_api.base import Condition
from headway_api.trainingjob import TrainingJobStatus
from headway_operator.trainingjob.times import timestamp

State = Literal["True", "False", "Unknown"]
PRESENT_WHILE_TRUE: Final = frozenset({"Stalled", "Reconciling"})
"""Conditions that kstatus reads: by its convention they are there only while they hold.

https://github.com/kubernetes-sigs/cli-utils/blob/master/pkg/kstatus/README.md
"""


@dataclass(frozen=True)
class Claim:
    """What a condition should say."""

    type: str
    status: bool
    reason: str
    message: str = ""


def state_of(status: TrainingJobStatus, kind: str) -> State | None:
    """Whether a condition holds; None where it was never written."""
    found = _find(status.conditions or (), kind)
    return found.status if found else None


def reason_of(status: TrainingJobStatus, kind: str) -> str | None:
    """A condition's reason; None where it was never written."""
    found = _find(status.conditions or (), kind)
    return found.reason if found else None


def with_claims(
    conditions: Iterable[Condition] | None,
    claims: Iterable[Claim],
    *,
    generation: int,
    now: datetime,
) -> list[Condition]:
    """The conditions with some of them made to say something; the others stay."""
    held = {condition.type: condition for condition in conditions or ()}
    for claim in claims:
        if not claim.status and claim.type in PRESENT_WHILE_TRUE:
            held.pop(claim.type, None)
            continue
        state: State = "True" if claim.status else "False"
        before = held.get(claim.type)
        moved = before is None or before.status != state
        held[claim.type] = Condition(
            type=claim.type,
            status=state,
            reason=claim.reason,
            message=claim.message[:4096],
            observed_generation=generation,
            last_transition_time=timestamp(now)
            if moved or before is None
            else before.last_transition_time,
        )
    return list(held.values())


def _find(conditions: Iterable[Condition], kind: str) -> Condition | None:
    return next((condition for condition in conditions if condition.type == kind), None)
