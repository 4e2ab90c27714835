"""The course of a metric: the right best, the right last, and never more than 64 points."""

import math
import random
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_api.observations import (
    MOST_POINTS,
    Observation,
    all_merged,
    merged,
    report,
    shortened,
)

VALUES = st.floats(allow_nan=True, allow_infinity=True)
REPORTS = st.lists(st.tuples(st.integers(0, 2000), VALUES), min_size=1, max_size=200)


def course(*reports: tuple[int, float]) -> Observation:
    """The course of reports in the order in which they came."""
    known: Observation | None = None
    for step, value in reports:
        known = merged(known, report("loss", step, value))
    assert known is not None
    return known


def steps(observation: Observation) -> list[int]:
    return [point.step for point in observation.curve]


def value(observation: Observation, which: str) -> tuple[int, float] | None:
    point = getattr(observation, which)
    return None if point is None else (point.step, float(point.value))


def test_best_last_and_curve_of_a_few_reports() -> None:
    seen = course((1, 3.0), (2, 0.1), (3, 0.25))
    assert [value(seen, which) for which in ("last", "min", "max")] == [
        (3, 0.25),
        (2, 0.1),
        (1, 3.0),
    ]
    assert [(point.step, point.value) for point in seen.curve] == [
        (1, "3.0"),
        (2, "0.1"),
        (3, "0.25"),
    ]


@pytest.mark.parametrize("number", [1 / 3, 5e-324, -0.0, 1e308, math.inf, -math.inf])
def test_a_value_is_told_to_the_last_bit(number: float) -> None:
    seen = course((1, number))
    assert float(seen.last.value).hex() == number.hex()


def test_no_number_is_neither_smallest_nor_largest_but_a_report() -> None:
    seen = course((1, math.nan))
    assert (seen.min, seen.max, seen.last.value) == (None, None, "nan")
    seen = course((1, math.nan), (2, 1.0), (3, math.nan))
    assert value(seen, "min") == value(seen, "max") == (2, 1.0)
    assert seen.last.value == "nan"
    assert steps(seen) == [1, 2, 3]


def test_of_equal_values_the_first_is_the_best() -> None:
    seen = course((1, 2.0), (2, 1.0), (3, 1.0), (4, 2.0))
    assert (value(seen, "min"), value(seen, "max")) == ((2, 1.0), (1, 2.0))


def test_a_full_curve_keeps_every_second_report_and_the_newest() -> None:
    seen = course(*((step, float(step)) for step in range(1, 66)))
    assert seen.spacing == 2
    assert steps(seen) == [*range(2, 65, 2), 65]
    seen = course(*((step, float(step)) for step in range(1, 130)))
    assert seen.spacing == 4
    assert steps(seen) == [*range(4, 129, 4), 129]


def test_thousands_of_reports_leave_a_few_evenly_spaced_ones() -> None:
    seen = course(*((step, math.sin(step)) for step in range(1, 5001)))
    assert seen.spacing == 128
    assert steps(seen) == [*range(128, 5000, 128), 5000]
    assert value(seen, "min") == min(
        ((step, math.sin(step)) for step in range(1, 5001)), key=lambda each: each[1]
    )


def test_reports_that_never_meet_a_multiple_are_thinned_evenly_too() -> None:
    seen = course(*((step, 0.0) for step in range(1, 10_000, 100)))
    assert 32 <= len(seen.curve) <= MOST_POINTS
    gaps = {after - before for before, after in pairwise(steps(seen)[:-1])}
    assert gaps <= {100, 200, 300}


def test_a_metric_that_appears_late_has_a_curve_from_there() -> None:
    assert steps(course((10**6, 1.0), (10**6 + 1, 2.0))) == [10**6, 10**6 + 1]


def test_what_is_trained_again_replaces_the_older_report_of_its_step() -> None:
    """Later steps stay until they are reached again; a best that was replaced is none any more."""
    before = course(*((step, 10.0 - step) for step in range(1, 9)))
    after = course((5, 0.5), (6, 4.0))
    seen = merged(before, after)
    assert steps(seen) == [*range(1, 9)]
    assert [point.value for point in seen.curve][4:6] == ["0.5", "4.0"]
    assert value(seen, "last") == (6, 4.0)
    assert value(seen, "min") == (5, 0.5)
    assert value(merged(before, course((8, 7.0))), "min") == (7, 3.0)
    assert value(merged(before, course((1, 0.0))), "max") == (2, 8.0)


def test_last_words_without_a_curve_add_what_they_have() -> None:
    known = course((1, 3.0), (2, 2.0))
    words = shortened(course((1, 3.0), (2, 2.0), (3, 1.0), (4, 5.0)), 0)
    assert words.curve == []
    assert merged(known, words) == course((1, 3.0), (2, 2.0), (3, 1.0), (4, 5.0))


def test_metrics_keep_apart() -> None:
    loss, accuracy = report("loss", 1, 1.0), report("accuracy", 1, 0.5)
    assert all_merged([loss], [accuracy]) == [loss, accuracy]
    assert all_merged([loss, accuracy], [report("loss", 2, 0.5)])[1] == accuracy
    assert all_merged(None, None) == []


@given(REPORTS)
def test_best_and_last_are_those_of_the_newest_report_of_each_step(
    reports: list[tuple[int, float]],
) -> None:
    """As long as no step is thinned out, which may hide that its report was replaced."""
    reports = [(step % MOST_POINTS, value) for step, value in reports]
    seen, truth = course(*reports), dict(reports)
    numbers = [(value, step) for step, value in truth.items() if not math.isnan(value)]
    smallest = min(numbers, default=None)
    assert value(seen, "min") == (smallest and (smallest[1], smallest[0]))
    largest = min(((-value, step) for value, step in numbers), default=None)
    assert value(seen, "max") == (largest and (largest[1], -largest[0]))
    assert (seen.last.step, seen.last.value) == (reports[-1][0], repr(reports[-1][1]))
    assert steps(seen) == sorted(truth)


@given(REPORTS, st.integers(0, 200))
def test_sessions_put_together_are_as_good_as_one(
    reports: list[tuple[int, float]], cut: int
) -> None:
    """A new lead's course over the status, in whatever piece, and delivered twice."""
    reports = sorted({step: (step, value) for step, value in reports}.values())
    cut = min(cut, len(reports) - 1)
    whole, rest = course(*reports), course(*reports[cut:])
    joined = merged(course(*reports[:cut]), rest) if cut else rest
    assert joined == whole
    assert merged(joined, rest) == joined
    assert merged(whole, joined) == whole


@given(REPORTS)
def test_a_curve_is_bounded_ascending_and_has_the_report_that_is_furthest(
    reports: list[tuple[int, float]],
) -> None:
    seen = course(*reports)
    assert len(seen.curve) <= MOST_POINTS
    assert steps(seen) == sorted(set(steps(seen)))
    assert steps(seen)[-1] == max(step for step, _ in reports)


@pytest.mark.parametrize("seed", range(20))
def test_sparse_and_dense_reports_fill_at_least_a_quarter_of_the_room(seed: int) -> None:
    chance = random.Random(seed)
    every = chance.choice([1, 7, 10, 64, 100, 333, 1000])
    count = chance.randint(64, 3000)
    seen = course(*((step * every + chance.randrange(every), 1.0) for step in range(count)))
    assert len(seen.curve) >= MOST_POINTS / 4
