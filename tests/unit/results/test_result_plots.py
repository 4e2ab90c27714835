"""Plots: each kind is drawn for a browser and for paper, or a sentence says why it is not."""

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from result_worlds import (
    a_job,
    a_record,
    a_sweep,
    course,
    found,
    of_an_earlier_version,
    trained,
)

from headway_operator.results.errors import NotDrawnError
from headway_operator.results.findings import Findings
from headway_operator.results.kinds import Importance, Kind, Plot
from headway_operator.results.plots import MOST_CURVES, curves, importances, interactive, write

PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}
TWO = [{"metric": "loss"}, {"metric": "time", "direction": "Maximize"}]


@pytest.fixture(scope="module")
def searched() -> Findings:
    sweep = a_sweep(maxTrials=40)
    return found(sweep, *trained(sweep, 24))


@pytest.fixture(scope="module")
def two() -> Findings:
    sweep = a_sweep(objectives=TWO)
    return found(sweep, *trained(sweep, 24))


@pytest.mark.parametrize("kind", [each for each in Kind if each is not Kind.pareto])
@pytest.mark.parametrize("suffix", [".html", ".png"])
def test_every_kind_is_drawn_also_with_stopped_failed_and_conditional_ones(
    searched: Findings, kind: Kind, suffix: str, tmp_path: Path
) -> None:
    out = tmp_path / f"x{suffix}"
    write(searched, Plot(kind), out)
    start = out.read_bytes()[:8]
    assert start == b"\x89PNG\r\n\x1a\n" if suffix == ".png" else start.startswith(b"<")
    assert len(interactive(searched, Plot(kind)).data) > 0


@pytest.mark.parametrize("kind", list(Kind))
def test_every_kind_is_drawn_of_a_sweep_with_two_objectives(two: Findings, kind: Kind) -> None:
    assert len(interactive(two, Plot(kind, 1)).data) > 0


def test_the_history_is_that_of_the_sweep(searched: Findings) -> None:
    figure = interactive(searched, Plot(Kind.history))
    best = {trace.name: trace for trace in figure.data}["Best Value"]
    assert searched.best is not None
    assert min(best.y) == (searched.best.values or ())[0]
    assert list(best.x) == list(range(24))


def test_a_history_of_what_is_to_be_large_goes_up(two: Findings) -> None:
    figure = interactive(two, Plot(Kind.history, 1))
    best = {trace.name: list(trace.y) for trace in figure.data}["Best Value"]
    assert best == sorted(best)


@pytest.mark.parametrize("importance", list(Importance))
def test_the_parameter_that_decides_is_the_most_important(importance: Importance) -> None:
    sweep = a_sweep(
        parameters=[{"name": name, "float": {"min": 0, "max": 1}} for name in ("much", "little")]
    )
    points = [(0.5 + 0.5 * math.sin(7 * i), 0.5 + 0.5 * math.cos(11 * i)) for i in range(40)]
    jobs = [
        a_job(sweep, i, {"much": x, "little": y}, {"loss": [(1, x + 0.01 * y)]})
        for i, (x, y) in enumerate(points)
    ]
    here = found(sweep, *jobs)
    (bar,) = interactive(here, Plot(Kind.importances, importance=importance)).data
    assert bar.y[-1] == "much"  # the last one is drawn on top
    assert max(importances(here), key=lambda name: importances(here)[name]) == "much"


def some(count: int, **spec: Any) -> Findings:
    sweep = a_sweep(**spec)
    return found(sweep, *trained(sweep, count))


def values(*numbers: float, params: Mapping[str, Any] = PARAMS) -> Findings:
    sweep = a_sweep()
    return found(
        sweep, *(a_job(sweep, i, params, {"loss": [(1, value)]}) for i, value in enumerate(numbers))
    )


NEEDS_A_VALUE = [each for each in Kind if each not in {Kind.pareto, Kind.timeline}]


@pytest.mark.parametrize("kind", list(Kind))
def test_a_sweep_without_trials_is_a_sentence(kind: Kind) -> None:
    with pytest.raises(NotDrawnError, match=r"no trial|no trials|Pareto front"):
        interactive(some(0), Plot(kind))


@pytest.mark.parametrize("kind", NEEDS_A_VALUE)
def test_a_sweep_whose_trials_have_all_failed_is_a_sentence(kind: Kind) -> None:
    sweep = a_sweep()
    here = found(sweep, *(a_job(sweep, i, PARAMS, phase="Failed") for i in range(3)))
    with pytest.raises(NotDrawnError, match="no trial has"):
        interactive(here, Plot(kind))


@pytest.mark.parametrize(
    ("here", "plot", "said"),
    [
        (values(1.0), Plot(Kind.slice), "only one trial has a value"),
        (values(1.0, math.inf), Plot(Kind.slice), "only one trial has a value"),
        (values(math.inf, -math.inf), Plot(Kind.history), "no trial has a value of loss yet that"),
        (values(1.0, 1.0), Plot(Kind.importances), "all trials have the same loss"),
        (values(1.0, 2.0), Plot(Kind.contour), "contour needs 2 parameters with more than one"),
        (values(1.0, 2.0), Plot(Kind.parallel), "parallel needs 1 parameter with more than one"),
        (some(9), Plot(Kind.slice, params=("x",)), "there is no parameter x: there are lr, opt"),
        (some(9), Plot(Kind.slice, params=("epochs",)), "epochs has had no two values"),
        (some(9), Plot(Kind.contour, params=("lr",)), "contour needs 2 parameters"),
        (some(9), Plot(Kind.pareto), "this sweep has one objective and a best trial"),
        (
            some(9, objectives=[{"metric": m} for m in "abcd"]),
            Plot(Kind.pareto),
            "this sweep has 4 objectives",
        ),
    ],
)
def test_what_cant_be_drawn_is_a_sentence(here: Findings, plot: Plot, said: str) -> None:
    with pytest.raises(NotDrawnError) as caught:
        interactive(here, plot)
    assert said in str(caught.value)


def test_a_timeline_is_not_made_up_for_trials_whose_times_are_gone() -> None:
    sweep = a_sweep()
    jobs = trained(sweep, 5)
    record = of_an_earlier_version(a_record(sweep, jobs[:2]))
    here = found(sweep, record, *jobs[2:])
    with pytest.raises(NotDrawnError, match="of 2 trials it is not known any more when they ran"):
        interactive(here, Plot(Kind.timeline))


def test_a_picture_of_another_kind_is_refused(searched: Findings, tmp_path: Path) -> None:
    with pytest.raises(NotDrawnError, match=r"ends in \.html, \.png"):
        write(searched, Plot(Kind.history), tmp_path / "x.bmp")


def test_of_very_many_trials_the_courses_of_the_best_are_drawn() -> None:
    here = some(MOST_CURVES * 2, maxTrials=MOST_CURVES * 2)
    shown = {each.index for each in curves(here)}
    assert len(shown) == MOST_CURVES
    counting = [each.index for each in here.ranked]
    assert shown == set(counting[:MOST_CURVES])
    assert len(interactive(here, Plot(Kind.intermediate)).data) == MOST_CURVES


def test_values_that_are_no_numbers_on_the_way_leave_gaps(tmp_path: Path) -> None:
    sweep = a_sweep()
    points = [(1, 3.0), (2, math.nan), (3, math.inf), (4, 1.0)]
    here = found(sweep, a_job(sweep, 0, PARAMS, {"loss": points}))
    for name in ("x.html", "x.png"):
        write(here, Plot(Kind.intermediate), tmp_path / name)


def test_trials_at_a_rung_are_drawn_with_what_they_have() -> None:
    sweep = a_sweep(stopping={"asha": {"minSteps": 30, "maxSteps": 90}})
    jobs = [
        a_job(sweep, i, PARAMS, {"loss": course(i)}, phase="Suspended", reason="PausedAtStep")
        for i in range(3)
    ]
    for job in jobs:
        job["spec"]["pauseAtStep"] = 30
    here = found(sweep, *jobs)
    assert {each.state for each in here.results} == {"Paused"}
    assert list(interactive(here, Plot(Kind.history)).data[0].y) == [0.0, 1.0, 2.0]


@pytest.mark.parametrize("kind", [Kind.history, Kind.slice, Kind.edf, Kind.intermediate])
def test_values_of_diverged_trainings_spoil_no_picture(kind: Kind, tmp_path: Path) -> None:
    sweep = a_sweep()
    reported = [1e308, -1e308, math.inf, 2.0, 1.0]
    jobs = [
        a_job(sweep, i, {**PARAMS, "layers": 1 + i % 4}, {"loss": [(1, value), (2, value)]})
        for i, value in enumerate(reported)
    ]
    here = found(sweep, *jobs)
    write(here, Plot(kind), tmp_path / "x.png")
    shown = [y for trace in interactive(here, Plot(kind)).data for y in trace.y if y is not None]
    assert all(math.isnan(y) or math.isinf(y) or abs(y) < 1e30 for y in shown)
    assert len({y for y in shown if math.isfinite(y)}) > 1
