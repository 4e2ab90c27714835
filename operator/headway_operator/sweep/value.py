"""What counts of a trial: from a TrainingJob's observations to one number for each objective."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from headway_api.sweep import Objective
from headway_operator.sweep.trial import Direction, Point


@dataclass(frozen=True, slots=True)
class Observed:
    """The course of a metric.

    Attributes:
        last: the newest report.
        min: the smallest one that is a number; None without one.
        max: the largest one that is a number; None without one.
        curve: reports by ascending step; of very many not all.
    """

    last: Point
    min: Point | None = None
    max: Point | None = None
    curve: tuple[Point, ...] = ()


def observed(items: Any) -> dict[str, Observed]:
    """Metrics by name, from `status.observations` of a TrainingJob; what is odd is left out."""
    found = {}
    for item in items if isinstance(items, Sequence) else ():
        if not isinstance(item, Mapping) or not isinstance(item.get("metric"), str):
            continue
        last, curve = _point(item.get("last")), _curve(item.get("curve"))
        last = last or (curve[-1] if curve else None)
        if last is not None:
            low, high = _number(item.get("min")), _number(item.get("max"))
            found[item["metric"]] = Observed(last, low, high, curve)
    return found


def values(
    observed: Mapping[str, Observed], objectives: Sequence[Objective]
) -> tuple[float, ...] | None:
    """What a run counts with, one value for each objective; None if one is missing or NaN."""
    found = []
    for objective in objectives:
        point = _taken(observed.get(objective.metric), objective)
        if point is None or math.isnan(point.value):
            return None
        found.append(point.value)
    return tuple(found)


def combined(
    runs: Sequence[Sequence[float]], objectives: Sequence[Objective], spread_weight: float
) -> tuple[float, ...] | None:
    """What a configuration counts with: the mean of its runs, made worse by their spread.

    Args:
        runs: shape (runs, objectives).
        objectives: for their directions.
        spread_weight: by how many sample standard deviations (divisor n - 1; of one run 0).

    Returns:
        One value for each objective; None without runs, or where infinities cancel out.
    """
    if not runs:
        return None
    found = []
    for objective, column in zip(objectives, zip(*runs, strict=True), strict=True):
        mean = sum(column) / len(column)
        if math.isnan(mean):
            return None
        worse = spread_weight * _deviation(column, mean) if spread_weight else 0.0
        found.append(mean + worse if objective.direction == "Minimize" else mean - worse)
    return tuple(found)


def better(direction: Direction, a: float, b: float) -> bool:
    """Whether the first value is better than the second."""
    return a < b if direction == "Minimize" else a > b


def reached(objective: Objective, value: float) -> bool:
    """Whether a value is as good as asked; any is, where nothing is asked."""
    return objective.goal is None or not better(objective.direction, objective.goal, value)


def _taken(course: Observed | None, objective: Objective) -> Point | None:
    if course is None:
        return None
    if objective.take == "Last":
        return course.last
    return course.min if objective.direction == "Minimize" else course.max


def _deviation(column: Sequence[float], mean: float) -> float:
    if len(column) == 1 or math.isinf(mean):
        return 0.0
    # hypot, unlike squares, does not overflow.
    return math.hypot(*(value - mean for value in column)) / math.sqrt(len(column) - 1)


def _curve(items: Any) -> tuple[Point, ...]:
    points = (_point(item) for item in (items if isinstance(items, Sequence) else ()))
    by_step = {point.step: point for point in points if point is not None}
    return tuple(by_step[step] for step in sorted(by_step))


def _number(item: Any) -> Point | None:
    point = _point(item)
    return None if point is None or math.isnan(point.value) else point


def _point(item: Any) -> Point | None:
    try:
        return Point(int(item["step"]), float(item["value"]))
    except (KeyError, TypeError, ValueError, OverflowError):
        return None
