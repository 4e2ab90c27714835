"""The Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_operator.sweep.pareto import front
from headway_operator.sweep.trial import Direction

VALUE = st.sampled_from([-math.inf, -1.0, 0.0, 0.5, 1.0, 2.0, math.inf])
DIRECTIONS: list[Direction] = ["Minimize", "Maximize"]


def brute_force(points: Sequence[Sequence[float]], directions: Sequence[Direction]) -> list[int]:
    def no_worse(a: float, b: float, direction: Direction) -> bool:
        return a <= b if direction == "Minimize" else a >= b

    def dominates(a: Sequence[float], b: Sequence[float]) -> bool:
        return tuple(a) != tuple(b) and all(map(no_worse, a, b, directions))

    return [n for n, b in enumerate(points) if not any(dominates(a, b) for a in points)]


@st.composite
def clouds(draw: st.DrawFn) -> tuple[list[tuple[float, ...]], list[Direction]]:
    directions = draw(st.lists(st.sampled_from(DIRECTIONS), min_size=1, max_size=4))
    point = st.tuples(*[VALUE] * len(directions))
    return draw(st.lists(point, max_size=30)), directions


@given(clouds())
def test_the_front_is_what_nothing_else_dominates(
    cloud: tuple[list[tuple[float, ...]], list[Direction]],
) -> None:
    assert front(*cloud) == brute_force(*cloud)


@pytest.mark.parametrize(
    ("points", "places"),
    [
        ([], []),
        ([(1, 1), (1, 1)], [0, 1]),
        ([(2, 2), (1, 9), (1, 3), (9, 1), (2, 2)], [0, 2, 3, 4]),
    ],
)
def test_the_front_is_in_the_order_of_the_points_and_keeps_equal_ones(
    points: list[tuple[float, float]], places: list[int]
) -> None:
    assert front(points, ["Minimize", "Minimize"]) == places


def test_a_front_of_100_000_trials_does_not_take_all_pairs() -> None:
    """10 billion comparisons would never end; a staircase is the case with the largest front."""
    points = [(float(n), float(-n)) for n in range(100_000)]
    assert front(points, ["Minimize", "Minimize"]) == list(range(100_000))
