"""What search algorithms and stopping rules know of a trial. Nothing else may matter to them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, TypeAlias

Scalar: TypeAlias = bool | int | float | str
Direction: TypeAlias = Literal["Minimize", "Maximize"]
State: TypeAlias = Literal["Running", "Paused", "Complete", "Stopped", "Failed"]
"""`Running`: it runs, is queued, or is about to. `Paused`: it waits at a rung. `Complete`: its
script came to the end. `Stopped`: a rule ended it, what it reported counts. `Failed`: it failed, or
has no value that is a number."""


@dataclass(frozen=True)
class Point:
    """A report of the first objective.

    Attributes:
        step: optimizer steps done.
        value: as reported; may be no number, or infinite.
    """

    step: int
    value: float


@dataclass(frozen=True)
class Trial:
    """One configuration.

    Attributes:
        index: its number, from 0 in the order of creation.
        params: its parameters by name, typed as the space has them. Inactive ones are left out.
        state: where it is.
        values: its value for each objective; None as long as there is none. Of an ended trial it is
            what counts, of another what it would be if it ended now.
        curve: reports of the first objective by ascending step, at most one for each step; of very
            many not all.
        step: optimizer steps done.
        until: the step at which it pauses; None if it goes on to the end.
        attrs: what the search algorithm wanted to know of it later, as JSON.
    """

    index: int
    params: Mapping[str, Scalar]
    state: State
    values: tuple[float, ...] | None = None
    curve: Sequence[Point] = ()
    step: int = 0
    until: int | None = None
    attrs: Mapping[str, Any] = field(default_factory=dict)

    @property
    def ended(self) -> bool:
        """Whether it will never go on."""
        return self.state in {"Complete", "Stopped", "Failed"}

    def best(self, direction: Direction, until: float = math.inf) -> float | None:
        """The best value reported up to a step; None without one that is a number."""
        values = [p.value for p in self.curve if p.step <= until and not math.isnan(p.value)]
        if not values:
            return None
        return min(values) if direction == "Minimize" else max(values)
