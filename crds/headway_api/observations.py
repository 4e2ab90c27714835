"""The course of a metric: its best, its last, and a curve that never gets longer.

Pure, and the same on both sides: the agent puts its reports together, the operator puts sessions of
agents together. Putting the same reports together twice changes nothing.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Annotated

from pydantic import Field

from headway_api.base import Decimal, ListType, StatusModel

MOST_POINTS = 64
"""Points of a curve."""
Metric = Annotated[str, Field(min_length=1, max_length=128)]
"""Name of a reported metric."""


class ObservedPoint(StatusModel):
    """A report of a metric."""

    step: int
    """Optimizer steps done."""
    value: Decimal
    """The value, as the shortest decimal that is exactly this double; also `nan`, `inf`, `-inf`."""


class Observation(StatusModel):
    """The course of one metric."""

    metric: Metric
    """Its name."""
    last: ObservedPoint
    """The report that came last."""
    min: ObservedPoint | None = None
    """The smallest, and the first of equal ones; never `nan`."""
    max: ObservedPoint | None = None
    """The largest, and the first of equal ones; never `nan`."""
    spacing: Annotated[int, Field(ge=1)] = 1
    """Steps between the points of `curve`: doubled each time that it was full."""
    curve: Annotated[list[ObservedPoint], ListType("atomic"), Field(max_length=MOST_POINTS)] = (
        Field(default_factory=list)
    )
    """By ascending step: of every stretch of `spacing` steps the report that is furthest in it, so
    that those at multiples of `spacing` are there, and the newest is."""


def report(metric: str, step: int, value: float) -> Observation:
    """One report as a course of its own."""
    point = ObservedPoint(step=step, value=repr(float(value)))
    best = None if math.isnan(value) else point
    return Observation(metric=metric, last=point, min=best, max=best, curve=[point])


def merged(old: Observation | None, new: Observation) -> Observation:
    """A course after more of it; a report for a step that had one replaces it."""
    if old is None:
        return new
    again = {point.step: point for point in _points(new)}
    points = {point.step: point for point in old.curve} | again
    spacing, curve = _thinned(points, max(old.spacing, new.spacing), MOST_POINTS)
    return Observation(
        metric=new.metric,
        last=new.last,
        min=_extreme(old.min, new.min, points, again, sign=1),
        max=_extreme(old.max, new.max, points, again, sign=-1),
        spacing=spacing,
        curve=curve,
    )


def all_merged(
    old: Iterable[Observation] | None, new: Iterable[Observation] | None
) -> list[Observation]:
    """Courses of several metrics after more of them."""
    known = {each.metric: each for each in old or ()}
    for each in new or ():
        known[each.metric] = merged(known.get(each.metric), each)
    return list(known.values())


def shortened(observation: Observation, most: int) -> Observation:
    """A course whose curve has so many points at most; none for 0."""
    if not most:
        return observation.model_copy(update={"curve": []})
    points = {point.step: point for point in observation.curve}
    spacing, curve = _thinned(points, observation.spacing, most)
    return observation.model_copy(update={"spacing": spacing, "curve": curve})


def _points(observation: Observation) -> Iterable[ObservedPoint]:
    known = (observation.min, observation.max, observation.last)
    return (*observation.curve, *(point for point in known if point is not None))


def _extreme(
    old: ObservedPoint | None,
    new: ObservedPoint | None,
    points: dict[int, ObservedPoint],
    again: dict[int, ObservedPoint],
    *,
    sign: int,
) -> ObservedPoint | None:
    """The best of both: of all that is known, where the old one was replaced."""
    replaced = old is not None and old.step in again
    candidates = [*points.values()] if replaced else [p for p in (old, new) if p is not None]
    numbers = [point for point in candidates if not math.isnan(float(point.value))]
    return min(numbers, key=lambda p: (sign * float(p.value), p.step), default=None)


def _thinned(
    points: dict[int, ObservedPoint], spacing: int, most: int
) -> tuple[int, list[ObservedPoint]]:
    """The last point of each stretch of `spacing` steps, which is doubled until they fit."""
    ordered = [points[step] for step in sorted(points)]
    while True:
        curve = {-(-point.step // spacing): point for point in ordered}
        if len(curve) <= most:
            return spacing, list(curve.values())
        spacing *= 2
