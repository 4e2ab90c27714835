"""The Pareto front: what nothing else is better than in every respect."""

from __future__ import annotations

from collections.abc import Sequence

from headway_operator.sweep.trial import Direction


def front(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    """Places of the points that no other dominates, ascending; equal points are all in it.

    Takes O(n log n) for up to two objectives, and O(n * front) for more.

    Args:
        points: shape (n, objectives); infinite values are fine, NaN is not.
        directions: one for each objective.
    """
    signs = [1.0 if direction == "Minimize" else -1.0 for direction in directions]
    costs = [tuple(s * value for s, value in zip(signs, p, strict=True)) for p in points]
    found: list[int] = []
    # What dominates a point comes before it. Of two costs the second falls along the front, so
    # that its last point has the lowest: if that one does not dominate, none does.
    for place in sorted(range(len(costs)), key=costs.__getitem__):
        rivals = found[-1:] if len(signs) <= 2 else found
        if not any(_dominates(costs[rival], costs[place]) for rival in rivals):
            found.append(place)
    return sorted(found)


def _dominates(a: tuple[float, ...], b: tuple[float, ...]) -> bool:
    return a != b and all(x <= y for x, y in zip(a, b, strict=True))
