"""What counts of a trial."""

from __future__ import annotations

import json
import math
import statistics
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_api.sweep import Objective
from headway_operator.sweep.trial import Point
from headway_operator.sweep.value import Observed, better, combined, observed, reached, values

NAN, INF = math.nan, math.inf


def told(step: int, value: str) -> dict[str, Any]:
    return {"step": step, "value": value}


LOSS = {
    "metric": "loss",
    "last": told(30, "0.5"),
    "min": told(20, "0.25"),
    "max": told(10, "inf"),
    "curve": [told(10, "inf"), told(20, "0.25"), told(30, "0.5")],
}


def test_observations_are_read_as_they_are_written() -> None:
    curve = (Point(10, INF), Point(20, 0.25), Point(30, 0.5))
    found = observed([LOSS, {"metric": "acc", "last": told(1, "-inf")}])
    assert found == {
        "loss": Observed(Point(30, 0.5), Point(20, 0.25), Point(10, INF), curve),
        "acc": Observed(Point(1, -INF)),
    }


def test_a_curve_is_in_the_order_of_steps_each_of_them_once() -> None:
    curve = [told(3, "3"), told(1, "1"), told(3, "4")]
    [course] = observed([{"metric": "loss", "curve": curve}]).values()
    assert course.curve == (Point(1, 1.0), Point(3, 4.0))
    assert course.last == Point(3, 4.0)


@pytest.mark.parametrize(
    "items",
    [
        None,
        "loss",
        [None, 3, "x", {}, {"metric": 3, "last": told(1, "1")}],
        [{"metric": "loss"}, {"metric": "loss", "curve": []}],
        [{"metric": "loss", "last": {"step": 1}}],
        [{"metric": "loss", "last": {"value": "1"}}],
        [{"metric": "loss", "last": told(1, "much")}],
        [{"metric": "loss", "last": {"step": None, "value": "1"}}],
        [{"metric": "loss", "last": {"step": INF, "value": "1"}}],
        [{"metric": "loss", "last": 7, "curve": 7}],
    ],
)
def test_observations_that_say_nothing_are_left_out(items: Any) -> None:
    assert observed(items) == {}


def test_odd_points_of_a_curve_leave_the_others() -> None:
    odd = [told(1, "1"), {"step": 2}, None, told(3, "3")]
    [course] = observed([LOSS | {"curve": odd, "min": None, "max": told(1, "nan")}]).values()
    assert course == Observed(Point(30, 0.5), None, None, (Point(1, 1.0), Point(3, 3.0)))


ODD = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["metric", "last", "min", "max", "curve", "step", "value"]), inner
        )
    ),
    max_leaves=12,
)


@given(ODD)
def test_nothing_in_observations_breaks_the_parser(items: Any) -> None:
    for course in observed(items).values():
        assert isinstance(course.last, Point)


def objective(direction: str = "Minimize", take: str = "Best", **fields: Any) -> Objective:
    return Objective.model_validate(
        {"metric": "loss", "direction": direction, "take": take, **fields}
    )


@pytest.mark.parametrize(
    ("direction", "take", "value"),
    [
        ("Minimize", "Best", 0.25),
        ("Maximize", "Best", INF),
        ("Minimize", "Last", 0.5),
        ("Maximize", "Last", 0.5),
    ],
)
def test_a_run_counts_with_its_best_or_its_last_report(
    direction: str, take: str, value: float
) -> None:
    assert values(observed([LOSS]), [objective(direction, take)]) == (value,)


def test_a_run_has_one_value_for_each_objective_in_their_order() -> None:
    acc = Objective(metric="acc", direction="Maximize", take="Last")
    both = observed([LOSS, {"metric": "acc", "last": told(1, "0.9")}])
    assert values(both, [acc, objective()]) == (0.9, 0.25)
    assert values(observed([LOSS]), [acc, objective()]) is None


@pytest.mark.parametrize("take", ["Best", "Last"])
def test_a_run_without_a_number_has_no_values(take: str) -> None:
    broken = {"metric": "loss", "last": told(3, "nan"), "curve": [told(3, "nan")]}
    assert values(observed([broken]), [objective(take=take)]) is None


def test_repeats_count_with_their_mean_made_worse_by_their_spread() -> None:
    objectives = [objective(), Objective(metric="acc", direction="Maximize")]
    runs = [(1.0, 5.0), (2.0, 7.0), (6.0, 9.0)]
    assert combined(runs, objectives, 0.0) == (3.0, 7.0)
    low, high = combined(runs, objectives, 2.0) or (NAN, NAN)
    assert low == pytest.approx(3.0 + 2 * statistics.stdev([1, 2, 6]))
    assert high == pytest.approx(7.0 - 2 * statistics.stdev([5, 7, 9]))


@pytest.mark.parametrize(
    ("column", "result"),
    [
        ([], None),
        ([4.0], 4.0),
        ([INF], INF),
        ([1.0, INF], INF),
        ([INF, INF], INF),
        ([-INF, 1.0], -INF),
        ([INF, -INF], None),
    ],
)
def test_few_or_infinite_runs_have_no_spread(column: list[float], result: float | None) -> None:
    found = combined([(value,) for value in column], [objective()], 1.0)
    assert found == (None if result is None else (result,))


def test_the_spread_of_huge_values_does_not_overflow() -> None:
    [found] = combined([(1e200,), (3e200,)], [objective()], 1.0) or [NAN]
    assert found == pytest.approx(2e200 + math.sqrt(2) * 1e200)


def test_smaller_or_larger_is_better_and_the_same_never_is() -> None:
    assert better("Minimize", 1.0, 2.0)
    assert not better("Minimize", 2.0, 1.0)
    assert better("Maximize", 2.0, 1.0)
    assert not better("Maximize", 1.0, 2.0)
    assert not better("Minimize", 1.0, 1.0)
    assert not better("Maximize", 1.0, 1.0)


@pytest.mark.parametrize(
    ("direction", "goal", "value", "is_reached"),
    [
        ("Minimize", 1.0, 1.0, True),
        ("Minimize", 1.0, 1.1, False),
        ("Maximize", 1.0, 1.1, True),
        ("Maximize", 1.0, 0.9, False),
        ("Minimize", None, INF, True),
    ],
)
def test_a_goal_is_reached_by_what_is_as_good_or_better(
    direction: str, goal: float | None, value: float, is_reached: bool
) -> None:
    assert reached(objective(direction, goal=goal), value) is is_reached


@given(st.floats(allow_nan=False))
def test_values_survive_the_way_through_json_as_strings(value: float) -> None:
    item = {"metric": "loss", "last": told(1, repr(value))}
    assert observed(json.loads(json.dumps([item])))["loss"].last.value == value
