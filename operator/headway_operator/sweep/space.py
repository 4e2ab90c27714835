"""The search space: checking it, which of its parameters are active, values in and out."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Final, TypeAlias

from headway_api.sweep import FloatRange, IntRange, SearchAlgorithm, SearchParameter
from headway_operator.sweep.trial import Scalar
from headway_operator.trainingjob.environment import parameter_variable

_LONGEST: Final = 1024
"""Characters of a choice."""
SEED: Final = "seed"
"""The parameter that has the run's seed, where neither the space nor the template has one."""


class SpaceError(ValueError):
    """The search space can't be right; the text is a sentence that says what to change."""


# --- one dimension ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Continuum:
    """All floats of a range.

    Attributes:
        low: smallest.
        high: largest.
        log: whether orders of magnitude count.
    """

    low: float
    high: float
    log: bool = False

    @property
    def size(self) -> int | None:
        """How many values there are; None for more than anybody would count."""
        return 1 if self.low == self.high else None

    def typed(self, given: object) -> float | None:
        """A given value as this dimension has it; None when it is no value of it."""
        if isinstance(given, bool) or not isinstance(given, int | float):
            return None
        return float(given) if self.low <= given <= self.high else None

    def value(self, place: int) -> float:
        """The only value, of a range that has but one."""
        return self.low

    def at(self, share: float) -> float:
        """The value that so much of the range lies below, 0 to 1."""
        low, high = (math.log(self.low), math.log(self.high)) if self.log else (self.low, self.high)
        found = low + share * (high - low)
        return min(max(math.exp(found) if self.log else found, self.low), self.high)

    def share(self, value: Scalar) -> float:
        """How much of the range lies below a value, 0 to 1: what `at` was asked for."""
        low, high, found = self.low, self.high, float(value)
        if self.log:
            low, high, found = math.log(low), math.log(high), math.log(found)
        return (found - low) / (high - low)


@dataclass(frozen=True)
class Ladder:
    """Numbers at equal distances.

    Attributes:
        low: smallest.
        step: distance between two of them.
        size: how many there are.
        log: whether orders of magnitude count; of whole numbers with step 1 only.
    """

    low: int | float
    step: int | float
    size: int
    log: bool = False

    def typed(self, given: object) -> int | float | None:
        """A given value as this dimension has it; None when it is no value of it.

        A float may be off by a rounding error: 0.1 + 0.2 is 0.3.
        """
        if isinstance(given, bool) or not isinstance(given, int | float):
            return None
        if not math.isfinite(given):
            return None
        place = self.place(given)
        if not 0 <= place < self.size:
            return None
        value = self.value(place)
        allowed = 0.0 if isinstance(value, int) else 1e-9 * self.step
        return value if abs(value - given) <= allowed else None

    def place(self, value: Scalar) -> int:
        """Which one a value is, counted from the smallest."""
        if isinstance(self.low, int):
            return (int(value) - self.low) // int(self.step)
        return round((float(value) - self.low) / self.step)

    def value(self, place: int) -> int | float:
        """The value at a place; 0.1 + 2 · 0.1 is 0.3, as people write it."""
        if isinstance(self.low, int):
            return self.low + place * int(self.step)
        return float(Decimal(repr(self.low)) + place * Decimal(repr(self.step)))

    def at(self, share: float) -> int | float:
        """The value that so much of the range lies below, 0 to 1; each has its own piece."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self._high + 0.5)
            return min(max(round(math.exp(low + share * (high - low))), self.low), self._high)
        return self.value(min(int(share * self.size), self.size - 1))

    def share(self, value: Scalar) -> float:
        """Where the middle of a value's piece is, 0 to 1."""
        if self.log:
            low, high = math.log(self.low - 0.5), math.log(self._high + 0.5)
            return (math.log(float(value)) - low) / (high - low)
        return (self.place(value) + 0.5) / self.size

    @property
    def _high(self) -> int:
        return int(self.value(self.size - 1))


@dataclass(frozen=True)
class Choices:
    """Values in no order.

    Attributes:
        items: as the list has them.
    """

    items: tuple[Scalar, ...]

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self.items)

    def typed(self, given: object) -> Scalar | None:
        """The item that a given value is; None when it is none. 1 is 1.0, but not true."""
        place = self._places.get(same(given)) if isinstance(given, Scalar) else None
        return None if place is None else self.items[place]

    def place(self, value: Scalar) -> int:
        """Which one a value is."""
        return self._places[same(value)]

    def value(self, place: int) -> Scalar:
        """The item at a place."""
        return self.items[place]

    def at(self, share: float) -> Scalar:
        """An item, with 0 to 1 divided evenly among all."""
        return self.items[min(int(share * self.size), self.size - 1)]

    def share(self, value: Scalar) -> float:
        """Where the middle of an item's piece is, 0 to 1."""
        return (self.place(value) + 0.5) / self.size

    @cached_property
    def _places(self) -> Mapping[tuple[bool, Scalar], int]:
        return {same(item): place for place, item in enumerate(self.items)}


Dimension: TypeAlias = Continuum | Ladder | Choices


def dimension(parameter: SearchParameter) -> Dimension:
    """The values of a parameter, whether it is active or not."""
    if parameter.float_ is not None:
        return _of_floats(parameter.float_)
    if parameter.int_ is not None:
        numbers = parameter.int_
        size = (numbers.max - numbers.min) // numbers.step + 1
        return Ladder(numbers.min, numbers.step, size, numbers.log)
    return Choices(tuple(parameter.choice or ()))


def _of_floats(numbers: FloatRange) -> Dimension:
    if numbers.step is None:
        return Continuum(numbers.min, numbers.max, numbers.log)
    low, high, step = (Decimal(repr(each)) for each in (numbers.min, numbers.max, numbers.step))
    return Ladder(numbers.min, numbers.step, int((high - low) / step) + 1)


def same(value: Scalar) -> tuple[bool, Scalar]:
    """What two values have in common that are the same: 1 is 1.0, but not true."""
    return isinstance(value, bool), value


def text(value: Scalar) -> str:
    """A value as a parameter of a TrainingJob, from which a script gets exactly the same number."""
    if isinstance(value, bool):
        return str(value).lower()
    return value if isinstance(value, str) else repr(value)


# --- all dimensions -----------------------------------------------------------------------------


class Space:
    """A search space.

    Args:
        parameters: of a sweep, checked.
    """

    def __init__(self, parameters: Sequence[SearchParameter]) -> None:
        self.dimensions: Mapping[str, Dimension] = {p.name: dimension(p) for p in parameters}
        self._when = {p.name: self._condition(p) for p in parameters if p.when is not None}

    def _condition(self, parameter: SearchParameter) -> tuple[str, frozenset[tuple[bool, Scalar]]]:
        assert parameter.when is not None
        other = self.dimensions[parameter.when.parameter]
        values = (other.typed(value) for value in parameter.when.values)
        return parameter.when.parameter, frozenset(same(v) for v in values if v is not None)

    @property
    def conditional(self) -> bool:
        """Whether there are parameters that are not part of every trial."""
        return bool(self._when)

    @property
    def always(self) -> Mapping[str, Dimension]:
        """The dimensions that are part of every trial."""
        return {name: each for name, each in self.dimensions.items() if name not in self._when}

    def active(self, name: str, params: Mapping[str, Scalar]) -> bool:
        """Whether a parameter is part of a trial, by the values of those before it."""
        if name not in self._when:
            return True
        other, values = self._when[name]
        return other in params and same(params[other]) in values

    def assembled(self, pick: Callable[[str, Dimension], Scalar]) -> dict[str, Scalar]:
        """A configuration: `pick` is asked for each active parameter, in the order of the list."""
        params: dict[str, Scalar] = {}
        for name, each in self.dimensions.items():
            if self.active(name, params):
                params[name] = pick(name, each)
        return params

    def typed(self, given: Mapping[str, object]) -> dict[str, Scalar] | None:
        """A whole configuration with values as the space has them.

        Returns:
            None when it is none of this space: a value is outside, a parameter is missing, unknown
            or should not be active.
        """
        params: dict[str, Scalar] = {}
        for name, each in self.dimensions.items():
            if self.active(name, params):
                value = each.typed(given.get(name))
                if value is None:
                    return None
                params[name] = value
        return params if params.keys() == given.keys() else None


def contains(parameters: Sequence[SearchParameter], params: Mapping[str, Scalar]) -> bool:
    """Whether a configuration, maybe one of another sweep, is one of this space."""
    return Space(parameters).typed(params) is not None


# --- what can't be right ------------------------------------------------------------------------


def check(
    parameters: Sequence[SearchParameter],
    initial_points: Sequence[Mapping[str, Scalar]],
    algorithm: SearchAlgorithm,
) -> None:
    """Check what the API server can't.

    Args:
        parameters: the search space.
        initial_points: configurations to try first, in part or in whole.
        algorithm: what is to search.

    Raises:
        SpaceError: it can't be right; the text says what to change.
    """
    for problem in _problems(parameters, initial_points, algorithm):
        raise SpaceError(problem)


def _problems(
    parameters: Sequence[SearchParameter],
    initial_points: Sequence[Mapping[str, Scalar]],
    algorithm: SearchAlgorithm,
) -> Iterator[str]:
    """Sentences about what is wrong; what comes later relies on what came before."""
    yield from _scalars(parameters, initial_points)
    yield from _names(parameters)
    for place, parameter in enumerate(parameters):
        yield from _values(parameter)
        yield from _condition(parameter, parameters[:place])
    space = Space(parameters)
    for number, point in enumerate(initial_points):
        yield from (f"initialPoints[{number}] {said}" for said in _point(space, parameters, point))
    yield from _algorithm(space, algorithm)


def _scalars(
    parameters: Sequence[SearchParameter], initial_points: Sequence[Mapping[str, object]]
) -> Iterator[str]:
    """Values that are none: the API server takes anything where it may be a string or a number."""
    for each in parameters:
        yield from (f"parameter {each.name} has the choice {said}" for said in _odd(each.choice))
        if each.when is not None:
            yield from (
                f"parameter {each.name} waits for {said}" for said in _odd(each.when.values)
            )
    for number, point in enumerate(initial_points):
        for name, value in point.items():
            yield from (f"initialPoints[{number}] has for {name} {said}" for said in _odd([value]))


def _odd(values: Iterable[object] | None) -> Iterator[str]:
    for value in values or ():
        if not isinstance(value, Scalar):
            told = json.dumps(value, default=str)[:100]
            yield f"{told}: make it a string, a number, true or false."
        elif isinstance(value, float) and not math.isfinite(value):
            yield f"{value}: make it a finite number."
        elif isinstance(value, str) and len(value) > _LONGEST:
            yield f"{value[:20]}…, of {len(value)} characters: make it {_LONGEST} at most."


def _names(parameters: Sequence[SearchParameter]) -> Iterator[str]:
    taken = {parameter_variable(SEED): SEED}
    for parameter in parameters:
        variable = parameter_variable(parameter.name)
        other = taken.setdefault(variable, parameter.name)
        if other != parameter.name:
            yield (
                f"parameters {other} and {parameter.name} would both be {variable}: "
                f"rename {parameter.name}."
            )


def _values(parameter: SearchParameter) -> Iterator[str]:
    numbers: FloatRange | IntRange | None = parameter.float_ or parameter.int_
    if parameter.choice is not None:
        seen = set()
        for item in parameter.choice:
            if same(item) in seen:
                yield f"parameter {parameter.name} has the choice {text(item)} twice: remove one."
            seen.add(same(item))
    elif numbers is not None and math.isinf(numbers.max - numbers.min):
        yield f"parameter {parameter.name} has a range too wide for floats: narrow it."
    elif numbers is not None and numbers.log and _narrow(numbers.min, numbers.max):
        yield f"parameter {parameter.name} has a range too narrow for log: remove log."
    elif numbers is not None and numbers.step is not None:
        yield from _step(parameter.name, numbers.min, numbers.max, numbers.step)


def _narrow(low: float, high: float) -> bool:
    return low < high and math.log(low) == math.log(high)


def _step(name: str, low: float, high: float, step: float) -> Iterator[str]:
    if isinstance(low, int) and step == 1:
        return
    if isinstance(step, float) and step < math.ulp(max(abs(low), abs(high))):
        yield f"parameter {name} has a step of {step}, too small for its range: remove step."
    # As people write them: 0.5 - 0.4 is less than 0.1.
    elif Decimal(repr(step)) > Decimal(repr(high)) - Decimal(repr(low)):
        yield (
            f"parameter {name} has a step of {step}, which is larger than its range from {low} to "
            f"{high}: make it smaller, or give the one value as a choice."
        )


def _condition(parameter: SearchParameter, before: Sequence[SearchParameter]) -> Iterator[str]:
    if parameter.when is None:
        return
    name, other = parameter.name, parameter.when.parameter
    found = next((each for each in before if each.name == other), None)
    if found is None:
        yield (
            f"parameter {name} depends on {other}, which does not stand before it in the list: "
            f"add {other}, or move it up."
        )
        return
    values = dimension(found)
    if values.size is None:
        yield (
            f"parameter {name} depends on {other}, a float without a step, which is next to never "
            f"exactly one of the values: make {other} a choice, or give it a step."
        )
    for value in parameter.when.values:
        if values.typed(value) is None:
            yield (
                f"parameter {name} waits for {other} to be {text(value)}, which it can't be: "
                f"use values of {other}."
            )


def _point(
    space: Space, parameters: Sequence[SearchParameter], point: Mapping[str, Scalar]
) -> Iterator[str]:
    """What is wrong with an initial point, without its subject."""
    for name in sorted(point.keys() - space.dimensions.keys()):
        yield f"has a value for {name}, which is no parameter: remove it, or add the parameter."
    known: dict[str, Scalar] = {}
    for parameter in parameters:
        name, values = parameter.name, space.dimensions[parameter.name]
        active = space.active(name, known)
        if name not in point:
            if active and values.size == 1:
                known[name] = values.value(0)
            continue
        if not active and parameter.when is not None:
            wanted = " or ".join(text(value) for value in parameter.when.values)
            yield (
                f"has a value for {name}, which is part of a trial only when "
                f"{parameter.when.parameter} is {wanted}: set that too, or remove {name}."
            )
        value = values.typed(point[name])
        if value is None:
            yield (
                f"has {text(point[name])} for {name}, which is not one of its values: "
                "change it, or widen the parameter."
            )
        else:
            known[name] = value


def _algorithm(space: Space, algorithm: SearchAlgorithm) -> Iterator[str]:
    if algorithm.name == "grid":
        for name, values in space.dimensions.items():
            if values.size is None:
                yield (
                    f"parameter {name} is a float without a step, of which a grid has no end: "
                    "give it a step, or use a choice."
                )
    if algorithm.name == "cmaes" and len(ranges(space)) < 2:
        yield (
            "cmaes needs two or more float or int parameters that are part of every trial and have "
            "more than one value: use tpe, or add one."
        )


def ranges(space: Space) -> Mapping[str, Continuum | Ladder]:
    """The dimensions of numbers that vary and are part of every trial."""
    return {
        name: each
        for name, each in space.always.items()
        if not isinstance(each, Choices) and each.size != 1
    }
