"""What a search algorithm is asked, and what it answers: plain data, for a process pool."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from headway_api.sweep import SearchAlgorithm, SearchParameter
from headway_operator.sweep.space import Space
from headway_operator.sweep.trial import Direction, Scalar, Trial


class SpaceExhausted(Exception):  # noqa: N818 - the search has succeeded
    """Every configuration of the space has been tried."""


class AlgorithmMissing(Exception):  # noqa: N818 - named like its cause
    """A library that the algorithm needs is not installed; the text says what to do."""


@dataclass(frozen=True)
class Request:
    """Everything that a configuration may depend on.

    Attributes:
        parameters: the search space, checked.
        directions: of the objectives, one or more.
        algorithm: what searches.
        index: number of the trial whose configuration is wanted.
        seed: of the sweep: its UID or `spec.seed`.
        trials: all trials so far, those included that run, by index. Their curves are not needed
            and left out: they would be most of what goes to another process.
        warm: trials of other sweeps to learn from; those that lie in the space count.
        initial_points: configurations to try first, in part or in whole.
    """

    parameters: Sequence[SearchParameter]
    directions: Sequence[Direction]
    algorithm: SearchAlgorithm
    index: int
    seed: str
    trials: Sequence[Trial] = ()
    warm: Sequence[Trial] = ()
    initial_points: Sequence[Mapping[str, Scalar]] = ()

    def __post_init__(self) -> None:
        for name in ("trials", "warm"):
            lean = [
                replace(trial, curve=()) if trial.curve else trial for trial in getattr(self, name)
            ]
            object.__setattr__(self, name, tuple(sorted(lean, key=lambda trial: trial.index)))

    @cached_property
    def space(self) -> Space:
        """The search space."""
        return Space(self.parameters)

    def number(self, *what: object) -> int:
        """A random number below 2**32: the same for the same sweep and `what`."""
        said = "/".join(str(each) for each in (self.seed, *what))
        return int.from_bytes(hashlib.sha256(said.encode()).digest()[:4])

    def random(self, *what: object) -> random.Random:
        """A random generator of its own for `what` of this sweep."""
        return random.Random(self.number(*what))  # noqa: S311 (nothing is secret)


@dataclass(frozen=True)
class Suggestion:
    """A configuration.

    Attributes:
        params: active parameters by name, typed as the space has them.
        attrs: what the algorithm has to know of the trial later, as JSON, below its own name.
    """

    params: Mapping[str, Scalar]
    attrs: Mapping[str, Any] = field(default_factory=dict)
