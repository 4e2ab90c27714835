"""Median, patience and threshold: which running trial is stopped, and what people read."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import TrialState, create_trial

from bench.curves import spec
from headway_api.sweep import Median, Patience, Threshold
from headway_operator.sweep.stopping import median, patience, threshold, verdict
from headway_operator.sweep.trial import Direction, Point, State, Trial

NAN, INF = math.nan, math.inf


def a_trial(
    *values: float, index: int = 0, state: State = "Running", start: int = 1, every: int = 1
) -> Trial:
    curve = tuple(Point(start + every * n, value) for n, value in enumerate(values))
    return Trial(index, {}, state, curve=curve, step=curve[-1].step if curve else 0)


def others(*curves: Sequence[float], state: State = "Complete") -> list[Trial]:
    return [a_trial(*curve, index=n, state=state) for n, curve in enumerate(curves, 1)]


# --- median -------------------------------------------------------------------------------------

MEDIAN = Median(startup_trials=2)


def test_a_trial_worse_than_the_median_is_told_both_numbers() -> None:
    said = median.reason(MEDIAN, "Minimize", a_trial(5.0, 4.0), others([3, 1], [3, 2], [3, 9]))
    assert said == (
        "its best value up to step 2, 4, is worse than 2, the median of 3 trials at that step"
    )


@pytest.mark.parametrize(
    ("trial", "why"),
    [
        (a_trial(), "has no report"),
        (a_trial(1.0, 4.0), "was better before"),
        (a_trial(5.0, 2.0), "is as good as the median"),
        (a_trial(*[9.0] * 3), "is alone at its step"),
    ],
)
def test_a_trial_goes_on_that(trial: Trial, why: str) -> None:
    assert median.reason(MEDIAN, "Minimize", trial, others([3, 1], [3, 2], [3, 9])) is None, why


def test_no_trial_is_stopped_before_the_startup_trials_have_ended() -> None:
    bad, good = a_trial(9.0), others([1.0], [1.0])
    assert median.reason(Median(startup_trials=3), "Minimize", bad, good) is None
    assert median.reason(Median(startup_trials=2), "Minimize", bad, good) is not None


def test_no_trial_is_stopped_by_the_median_before_its_first_steps() -> None:
    good = others([1.0, 1.0], [1.0, 1.0])
    assert (
        median.reason(Median(startup_trials=1, min_steps=2), "Minimize", a_trial(9), good) is None
    )
    assert median.reason(Median(startup_trials=1, min_steps=2), "Minimize", a_trial(9, 9), good)


@pytest.mark.parametrize(("state", "counts"), [("Stopped", True), ("Failed", False)])
def test_stopped_trials_count_in_the_median_and_failed_ones_do_not(
    state: State, counts: bool
) -> None:
    good = others([1.0], [1.0], state=state)
    assert (median.reason(MEDIAN, "Minimize", a_trial(9.0), good) is not None) is counts


def test_a_stopped_trial_does_not_count_after_its_end() -> None:
    good = others([1.0], [1.0], state="Stopped")
    assert median.reason(MEDIAN, "Minimize", a_trial(9.0, 9.0), good) is None


def test_running_trials_do_not_count_in_the_median() -> None:
    good = others([1.0], [1.0], state="Running")
    assert median.reason(Median(startup_trials=1), "Minimize", a_trial(9.0), good) is None


def test_thinned_curves_count_with_their_last_value_before_the_step() -> None:
    thinned = [a_trial(3.0, 1.0, index=n, state="Complete", start=2, every=4) for n in (1, 2)]
    assert median.reason(MEDIAN, "Minimize", a_trial(2, 2, 2, 2), thinned) is None
    assert median.reason(MEDIAN, "Minimize", a_trial(2, 2, 2, 2, 2, 2), thinned) is not None


def test_a_curve_that_begins_after_the_step_does_not_count_in_the_median() -> None:
    late = [a_trial(1.0, 1.0, index=n, state="Complete", start=5) for n in (1, 2)]
    assert median.reason(MEDIAN, "Minimize", a_trial(9.0), late) is None


REPORTS = st.sampled_from([0.0, 0.25, 0.5, 1.0, 2.0, 4.0, NAN])
CURVE = st.lists(REPORTS, min_size=1, max_size=6)


@pytest.mark.filterwarnings("ignore:All-NaN:RuntimeWarning")
@given(
    curve=CURVE,
    finished=st.lists(CURVE, min_size=1, max_size=8),
    direction=st.sampled_from(["Minimize", "Maximize"]),
    startup=st.integers(1, 4),
    warmup=st.integers(0, 4),
)
def test_the_median_decides_as_optuna_does(
    curve: list[float],
    finished: list[list[float]],
    direction: Direction,
    startup: int,
    warmup: int,
) -> None:
    study = optuna.create_study(direction="minimize" if direction == "Minimize" else "maximize")
    study.add_trials(
        create_trial(value=0.0, intermediate_values=dict(enumerate(each, 1))) for each in finished
    )
    running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(curve, 1)))
    pruner = optuna.pruners.MedianPruner(n_startup_trials=startup, n_warmup_steps=warmup)
    rule = Median(startup_trials=startup, min_steps=warmup)
    ours = median.reason(rule, direction, a_trial(*curve), others(*finished))
    assert (ours is not None) == pruner.prune(study, running), ours


# --- patience -----------------------------------------------------------------------------------

PATIENCE = Patience(steps=3)


def test_a_trial_that_no_longer_becomes_better_is_told_since_when() -> None:
    said = patience.reason(PATIENCE, "Minimize", a_trial(3.0, 1.0, 2.0, 1.0, 1.0))
    assert said == "for 3 steps it has not become better than 1, its value at step 2"


@pytest.mark.parametrize(
    ("trial", "stops"),
    [
        (a_trial(), False),
        (a_trial(3, 1, 2, 1), False),
        (a_trial(3, 1, 2, 1, 0.9), False),
        (a_trial(3, NAN, NAN, NAN), True),
        (a_trial(NAN, NAN, NAN, NAN), True),
        (a_trial(NAN, NAN, NAN, 3), False),
        (a_trial(NAN, NAN, NAN, start=10), False),
        (a_trial(INF, INF, INF, INF), True),
        (a_trial(INF, 1, 1, 1), False),
        (a_trial(-INF, 1, 1, 1), True),
        (a_trial(2, 2, start=10, every=3), True),
        (a_trial(2, 2, start=10, every=2), False),
    ],
)
def test_patience_counts_steps_since_the_last_better_number(trial: Trial, stops: bool) -> None:
    assert (patience.reason(PATIENCE, "Minimize", trial) is not None) is stops


def test_patience_of_what_is_maximized_waits_for_larger_values() -> None:
    rising = a_trial(1, 2, 3, 4, 5)
    assert patience.reason(PATIENCE, "Maximize", rising) is None
    assert patience.reason(PATIENCE, "Minimize", rising) is not None


@pytest.mark.parametrize("direction", ["Minimize", "Maximize"])
def test_too_small_a_gain_does_not_renew_patience(direction: Direction) -> None:
    sign = -1.0 if direction == "Minimize" else 1.0
    creeping = a_trial(*[sign * 0.125 * n for n in range(5)])
    assert patience.reason(Patience(steps=4, min_delta=0.5), direction, creeping) is not None
    assert patience.reason(Patience(steps=4, min_delta=0.25), direction, creeping) is None


# --- threshold ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "said"),
    [
        (NAN, "its value at step 2 is not a number"),
        (0.5, "its value at step 2, 0.5, is below 1"),
        (INF, "its value at step 2, inf, is above 3"),
        (1.0, None),
        (3.0, None),
    ],
)
def test_a_value_out_of_bounds_is_told_with_its_bound(value: float, said: str | None) -> None:
    rule = Threshold(min=1.0, max=3.0)
    assert threshold.reason(rule, "Minimize", a_trial(2.0, value)) == said


@given(
    curve=st.lists(REPORTS, max_size=4),
    low=st.sampled_from([0.0, 0.5, None]),
    high=st.sampled_from([1.0, 2.0]),
    warmup=st.integers(0, 4),
)
def test_the_threshold_decides_as_optuna_does(
    curve: list[float], low: float | None, high: float, warmup: int
) -> None:
    running = create_trial(state=TrialState.RUNNING, intermediate_values=dict(enumerate(curve, 1)))
    pruner = optuna.pruners.ThresholdPruner(lower=low, upper=high, n_warmup_steps=warmup)
    rule = Threshold(min=low, max=high, min_steps=warmup)
    ours = threshold.reason(rule, "Minimize", a_trial(*curve))
    assert (ours is not None) == pruner.prune(optuna.create_study(), running), ours


# --- all three ----------------------------------------------------------------------------------


def said_of(trial: Trial, **rules: Any) -> str | None:
    return verdict(spec(rules, 10, 1), trial, [trial, *others([1.0], [1.0])])


def test_the_verdict_is_the_first_reason_of_the_rules_that_are_set() -> None:
    bad = a_trial(9.0)
    rules = {"median": {"startupTrials": 2}, "threshold": {"max": 5}}
    assert "median" in (said_of(bad, **rules) or "")
    assert "above" in (said_of(bad, threshold={"max": 5}) or "")
    assert "not become better" in (said_of(a_trial(9, 9), patience={"steps": 1}) or "")
    assert said_of(bad) is None
    assert said_of(bad, asha={"minSteps": 1, "maxSteps": 9}) is None


@pytest.mark.parametrize("state", ["Paused", "Complete", "Stopped", "Failed"])
def test_only_running_trials_are_stopped_by_a_verdict(state: State) -> None:
    assert said_of(a_trial(9.0, state=state), threshold={"max": 5}) is None


def test_a_trial_is_no_member_of_the_median_it_is_compared_with() -> None:
    trial = a_trial(9.0)
    rules = spec({"median": {"startupTrials": 1}}, 10, 1)
    assert verdict(rules, trial, [a_trial(1.0, state="Complete")]) is None
