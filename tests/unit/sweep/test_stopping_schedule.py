"""ASHA, successive halving and Hyperband: who goes on, who never does, and that it all ends."""

from __future__ import annotations

import math
import random
from collections import Counter
from collections.abc import Sequence
from typing import Any
from unittest import mock

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench import curves
from bench.curves import Course, Simulation, spec
from headway_operator.sweep.stopping import Schedule, schedule
from headway_operator.sweep.trial import Point, State, Trial

RULE = {"minSteps": 1, "maxSteps": 9, "reductionFactor": 3}
ASHA, HALVING, HYPERBAND = {"asha": RULE}, {"successiveHalving": RULE}, {"hyperband": RULE}
NAN, INF = math.nan, math.inf


def at(
    index: int,
    value: float | None,
    step: int = 1,
    state: State = "Paused",
    until: int | None = -1,
) -> Trial:
    """A trial that has reported a value at its last step, and pauses there unless told."""
    curve = () if value is None else (Point(step, value),)
    stops = step if until == -1 else until
    return Trial(index, {}, state, curve=curve, step=step, until=stops)


def planned(rule: dict[str, Any], trials: Sequence[Trial], more: int = 100) -> Schedule:
    return schedule(spec(rule, 1000, 8), trials, more)


# --- ASHA ---------------------------------------------------------------------------------------


def test_asha_promotes_the_best_third_of_a_rung_in_their_order() -> None:
    there = [at(n, value) for n, value in enumerate([5.0, 3.0, 4.0, 1.0, 2.0, 6.0])]
    assert planned(ASHA, there).promote == ((3, 3), (4, 3))


def test_asha_promotes_nobody_while_a_rung_has_less_than_eta() -> None:
    assert planned(ASHA, [at(0, 1.0), at(1, 2.0)]).promote == ()


def test_asha_counts_those_that_have_gone_on_but_does_not_promote_them_again() -> None:
    gone = at(0, 1.0, state="Running", until=3)
    there = [gone, at(1, 2.0), at(2, 3.0)]
    assert planned(ASHA, there).promote == ()
    assert planned(ASHA, [*there, *(at(n, 9.0) for n in range(3, 6))]).promote == ((1, 3),)


def test_asha_promotes_from_the_top_down() -> None:
    low = [at(n, float(n)) for n in range(12)]
    high = [at(n, 0.0, step=3) for n in range(12, 15)]
    assert planned(ASHA, [*low, *high]).promote == (
        (12, None),
        *((n, 3) for n in (0, 1)),  # 5 of the 15, of whom 3 have gone on
    )


def test_a_failed_trial_leaves_its_rung_in_asha() -> None:
    failed = at(0, 0.0, state="Failed")
    assert planned(ASHA, [failed, at(1, 1.0), at(2, 2.0)]).promote == ()
    assert planned(ASHA, [failed, *(at(n, float(n)) for n in (1, 2, 3))]).promote == ((1, 3),)


def test_a_script_that_has_ended_early_counts_at_all_rungs_of_asha() -> None:
    done = [at(n, 0.5, state="Complete", until=3) for n in (0, 1)]
    assert planned(ASHA, [*done, at(2, 0.0, step=3)]).promote == ((2, None),)
    assert planned(ASHA, [*done, at(2, 1.0, step=3)]).promote == ()


@pytest.mark.parametrize("nothing", [None, NAN])
def test_a_trial_without_a_number_is_last_at_its_rung(nothing: float | None) -> None:
    there = [at(0, nothing), at(1, INF), at(2, nothing)]
    assert planned(ASHA, there).promote == ((1, 3),)


def test_equal_trials_go_on_by_their_index() -> None:
    assert planned(ASHA, [at(n, 1.0) for n in (2, 0, 1)]).promote == ((0, 3),)


def test_large_values_go_on_where_they_are_to_be_maximized() -> None:
    rules = spec(ASHA, 9, 1, objectives=[{"metric": "acc", "direction": "Maximize"}])
    assert schedule(rules, [at(n, float(n)) for n in range(3)], 6).promote == ((2, 3),)


def test_what_counts_is_the_best_up_to_the_rung_not_what_came_after() -> None:
    later = Trial(0, {}, "Running", curve=(Point(1, 5.0), Point(2, 0.0)), step=2, until=3)
    there = [later, at(1, 1.0), at(2, 2.0)]
    assert planned(ASHA, there).promote == ((1, 3),)


def test_thinned_curves_of_those_that_went_on_promote_nobody_in_their_place() -> None:
    wide = {"asha": {"minSteps": 27, "maxSteps": 243, "reductionFactor": 3}}
    gone = [
        Trial(n, {}, "Running", curve=(Point(16, 90.0), Point(32, 1.0)), step=32, until=81)
        for n in range(3)
    ]
    there = [*gone, *(at(n, 9.0, step=27) for n in range(3, 9))]
    assert planned(wide, there).promote == ()


def test_the_last_asha_trials_wait_for_those_that_still_run() -> None:
    there = [at(0, 1.0), at(1, 2.0), at(2, None, step=0, state="Running", until=1)]
    plan = planned(ASHA, there, more=0)
    assert not plan.promote
    assert not plan.stop


def test_at_the_end_of_asha_the_best_goes_on_alone_and_then_the_rest_stops() -> None:
    there = [at(0, 2.0), at(1, 1.0)]
    assert planned(ASHA, there, more=1).promote == ()
    assert planned(ASHA, there, more=0).promote == ((1, 3),)
    higher = [at(0, 2.0), at(1, 1.0, step=3)]
    assert planned(ASHA, higher, more=0).promote == ((1, None),)
    done = [at(0, 2.0), at(1, 1.0, step=9, state="Complete", until=None)]
    [(index, reason)] = planned(ASHA, done, more=0).stop
    assert (index, reason) == (
        0,
        "no new trials come, and at step 1 it was not in the best 1/3",
    )


@given(values=st.permutations(range(12)), eta=st.integers(2, 4))
def test_asha_promotes_at_arrival_whom_optuna_does_not_prune(values: list[int], eta: int) -> None:
    """Optuna can't resume: it decides once, when a trial arrives, and ours may still later.

    It can't wait for eta trials either: the first ones go on if they are the best so far.
    """
    study = optuna.create_study(
        pruner=optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=eta),
        sampler=optuna.samplers.RandomSampler(seed=0),
    )
    rule = {"asha": {"minSteps": 1, "maxSteps": 64, "reductionFactor": eta}}
    trials: list[Trial] = []
    for index, value in enumerate(values):
        running = study.ask()
        running.report(float(value), 1)
        trials.append(at(index, float(value)))
        promoted = {promoted for promoted, _ in planned(rule, trials).promote}
        if index + 1 >= eta:
            assert (index in promoted) == (not running.should_prune())
        else:
            running.should_prune()  # it remembers the value
            assert not promoted


# --- successive halving -------------------------------------------------------------------------


def test_a_rung_of_a_bracket_waits_for_all_of_its_trials() -> None:
    there = [at(n, float(n)) for n in range(8)]
    assert planned(HALVING, there).promote == ()
    late = at(8, None, step=0, state="Running", until=1)
    assert planned(HALVING, [*there, late]).promote == ()
    assert planned(HALVING, [*there, at(8, -1.0)]).promote == ((8, 3), (0, 3), (1, 3))


def test_a_failed_trial_does_not_hold_up_its_bracket() -> None:
    there = [*(at(n, float(n)) for n in range(8)), at(8, None, state="Failed")]
    assert planned(HALVING, there).promote == ((0, 3), (1, 3), (2, 3))


def test_the_next_best_takes_the_place_of_one_that_fails_on_the_way() -> None:
    gone = [at(0, 0.0, step=2, state="Failed", until=3), at(1, 1.0, step=3), at(2, 2.0, step=3)]
    there = [*gone, *(at(n, float(n)) for n in range(3, 9))]
    plan = planned(HALVING, there)
    assert plan.promote == ((3, 3),)
    assert plan.stop == ()


def test_nobody_takes_the_place_of_one_that_fails_after_the_next_rung() -> None:
    failed = at(0, 0.0, step=4, state="Failed", until=None)
    higher = [failed, at(1, 1.0, step=3), at(2, 2.0, step=3)]
    plan = planned(HALVING, [*higher, *(at(n, float(n)) for n in range(3, 9))])
    assert plan.promote == ((1, None),)


def test_a_script_that_ends_after_its_promotion_does_not_take_a_second_place() -> None:
    done = at(0, 0.0, step=2, state="Complete", until=3)
    there = [done, *(at(n, float(n)) for n in range(1, 9))]
    assert planned(HALVING, there).promote == ((1, 3), (2, 3))


def test_the_rest_of_a_rung_is_stopped_when_all_places_of_the_next_are_taken() -> None:
    arrived = [at(n, float(n), step=3) for n in range(3)]
    rest = [at(n, float(n)) for n in range(3, 9)]
    under_way = [*arrived[:2], at(2, 2.0, state="Running", until=3), *rest]
    assert planned(HALVING, under_way).stop == ()
    plan = planned(HALVING, [*arrived, *rest])
    assert plan.promote == ((0, None),)
    assert [index for index, _ in plan.stop] == [3, 4, 5, 6, 7, 8]
    assert plan.stop[0][1] == "at step 1 it was not among the best 3 of its bracket of 9"


def test_a_trial_that_another_rule_has_stopped_keeps_its_place() -> None:
    stopped = at(0, 0.0, step=2, state="Stopped", until=3)
    there = [stopped, *(at(n, 1.0, step=3) for n in (1, 2)), *(at(n, 9.0) for n in range(3, 9))]
    plan = planned(HALVING, there)
    assert plan.promote == ((1, None),)
    assert [index for index, _ in plan.stop] == [3, 4, 5, 6, 7, 8]


def test_a_script_that_has_ended_early_takes_a_place_in_its_bracket() -> None:
    done = at(0, 0.0, state="Complete", until=1)
    there = [done, *(at(n, float(n)) for n in range(1, 9))]
    assert planned(HALVING, there).promote == ((1, 3), (2, 3))


def test_new_trials_of_the_next_bracket_do_not_wait_for_the_one_before() -> None:
    there = [at(n, None, step=0, state="Running", until=1) for n in range(9)]
    plan = planned(HALVING, there)
    assert plan.start(9) == 1


def test_the_last_bracket_halves_what_it_has() -> None:
    there = [at(n, float(n)) for n in range(7)]
    assert planned(HALVING, there, more=1).promote == ()
    assert planned(HALVING, there, more=0).promote == ((0, 3), (1, 3))
    assert planned(HALVING, there[:2], more=0).promote == ((0, 3),)


def test_brackets_are_as_large_as_asked() -> None:
    rule = {"successiveHalving": {**RULE, "trials": 3}}
    there = [at(n, float(n)) for n in range(6)]
    assert planned(rule, there).promote == ((0, 3), (3, 3))


# --- Hyperband ----------------------------------------------------------------------------------


def test_hyperbands_trials_first_pause_where_their_bracket_begins() -> None:
    start = planned(HYPERBAND, []).start
    firsts = [start(index) for index in range(2 * 17)]
    assert firsts == ([1] * 9 + [3] * 5 + [None] * 3) * 2


def test_each_bracket_of_hyperband_halves_for_itself() -> None:
    first = [at(n, float(n)) for n in range(9)]
    second = [at(n, float(n), step=3) for n in range(9, 14)]
    assert planned(HYPERBAND, [*first, *second]).promote == ((0, 3), (1, 3), (2, 3), (9, None))


# --- no rule, or another one --------------------------------------------------------------------


def test_without_a_rule_with_rungs_trials_go_to_the_end() -> None:
    plan = planned({"patience": {"steps": 3}}, [at(0, 1.0, state="Running", until=None)])
    assert (plan.promote, plan.stop) == ((), ())
    assert plan.start(5) is None


@pytest.mark.parametrize("rule", [None, ASHA, HALVING, HYPERBAND])
@pytest.mark.parametrize("more", [0, 100])
def test_trials_that_wait_where_the_edited_rule_has_no_rung_go_on(rule: Any, more: int) -> None:
    there = [at(0, 1.0, step=2), at(1, 1.0, step=7)]
    first = None if rule is None else 3
    assert set(planned(rule or {}, there, more).promote) == {(0, first), (1, None)}


def test_a_bracket_waits_for_those_that_are_sent_on_to_its_first_rung() -> None:
    later = {"successiveHalving": {**RULE, "minSteps": 3, "maxSteps": 27}}
    there = [*(at(n, float(n), step=3) for n in range(8)), at(8, 9.0, step=1)]
    assert planned(later, there).promote == ((8, 3),)


# --- whole sweeps -------------------------------------------------------------------------------

VALUES = st.lists(st.sampled_from([*range(8), NAN, INF, -INF]), min_size=27, max_size=27)


@st.composite
def sweeps(draw: st.DrawFn, *, trouble: bool) -> tuple[dict[str, Any], list[Course]]:
    """A rule, and what becomes of each configuration; with trouble some fail or end early."""
    rule = {"minSteps": draw(st.integers(1, 3)), "maxSteps": 27}
    rule["reductionFactor"] = draw(st.integers(2, 4))
    name = draw(st.sampled_from(["asha", "successiveHalving", "hyperband"]))
    found = []
    for _ in range(draw(st.integers(1, 24))):
        steps = draw(st.just(27) | st.integers(1, 27)) if trouble else 27
        fails = draw(st.none() | st.integers(1, steps)) if trouble else None
        seconds = draw(st.sampled_from([0.25, 1.0, 3.0]))
        found.append(Course(draw(VALUES)[:steps] if trouble else draw(NUMBERS), seconds, fails))
    return {name: rule}, found


NUMBERS = st.lists(st.floats(-8, 8), min_size=27, max_size=27)


def swept(rule: dict[str, Any], found: list[Course], slots: int, seed: int | None) -> Simulation:
    """The sweep at its end; with a seed the operator crashes between any two writes."""
    dice = random.Random(seed)
    rules = spec(rule, len(found), slots)
    crashing = (lambda writes: dice.randint(0, writes)) if seed is not None else (lambda n: n)
    simulation = Simulation(rules, found.__getitem__, crashing)
    simulation.run()
    return simulation


SLOTS, SEED = st.integers(1, 9), st.integers(0, 2**32)


@given(sweeps(trouble=True), SLOTS, SEED)
def test_every_sweep_ends_with_all_its_trials_each_step_done_once(
    sweep: tuple[dict[str, Any], list[Course]], slots: int, seed: int
) -> None:
    rule, found = sweep
    end = swept(rule, found, slots, seed)
    assert sorted(end.trials) == list(range(len(found)))
    assert all(trial.ended for trial in end.trials.values())
    twice = Counter((leg.index, leg.first) for leg in end.legs)
    assert all(count == 1 for count in twice.values())
    assert end.steps_by() == sum(trial.step for trial in end.trials.values())


@given(sweeps(trouble=True), SLOTS, SEED)
def test_asha_always_trains_a_trial_to_the_end_unless_all_fail(
    sweep: tuple[dict[str, Any], list[Course]], slots: int, seed: int
) -> None:
    [rule], found = sweep[0].values(), sweep[1]
    states = Counter(
        trial.state for trial in swept({"asha": rule}, found, slots, seed).trials.values()
    )
    assert states["Complete"] or states["Failed"] == len(found)


@given(sweeps(trouble=True), SLOTS, SEED, SLOTS, SEED)
def test_brackets_come_to_the_same_end_whatever_the_order_and_the_crashes(
    sweep: tuple[dict[str, Any], list[Course]], slots: int, seed: int, others: int, other: int
) -> None:
    rule, found = sweep
    [(name, numbers)] = rule.items()
    rule = {"hyperband" if name == "asha" else name: numbers}
    calm = swept(rule, found, slots, None)
    dice = random.Random(other)
    jolted = [Course(each.values, dice.uniform(0.1, 5.0), each.fails_at) for each in found]
    rough = swept(rule, jolted, others, seed)
    assert {n: (t.state, t.step) for n, t in calm.trials.items()} == {
        n: (t.state, t.step) for n, t in rough.trials.items()
    }


@given(sweeps(trouble=False), SLOTS, SEED)
def test_brackets_promote_as_many_as_planned_and_keep_to_their_budget(
    sweep: tuple[dict[str, Any], list[Course]], slots: int, seed: int
) -> None:
    [rule], found = sweep[0].values(), sweep[1]
    end = swept({"successiveHalving": rule}, found, slots, seed)
    low, eta = rule["minSteps"], rule["reductionFactor"]
    pauses = [low]
    while pauses[-1] * eta * eta <= 27:
        pauses.append(pauses[-1] * eta)
    size = eta ** len(pauses)
    reached: Counter[tuple[int, int]] = Counter()
    for trial in end.trials.values():
        for rung, step in enumerate((*pauses, 27)):
            reached[trial.index // size, rung] += trial.step >= step
    for bracket in range(-(-len(found) // size)):
        members = min(len(found) - bracket * size, size)
        for rung in range(len(pauses) + 1):
            assert reached[bracket, rung] == max(members // eta**rung, 1)


@given(sweeps(trouble=True), SLOTS, SEED)
def test_asha_promotes_none_but_the_best_of_a_rung(
    sweep: tuple[dict[str, Any], list[Course]], slots: int, seed: int
) -> None:
    [rule], found = sweep[0].values(), sweep[1]

    def checked(spec: Any, trials: Sequence[Trial], more: int) -> Schedule:
        plan = schedule(spec, trials, more)
        last_resort = not more and all(trial.state != "Running" for trial in trials)
        for index, until in plan.promote:
            [trial] = [each for each in trials if each.index == index]
            assert trial.state == "Paused"
            assert until is None or until > trial.step
            rung = trial.until or 0
            alive = [each for each in trials if each.state != "Failed"]
            there = [each for each in alive if each.step >= rung or each.state == "Complete"]
            ahead = sum(_key(each, rung) < _key(trial, rung) for each in there)
            assert ahead < max(len(there) // rule["reductionFactor"], int(last_resort))
        return plan

    with mock.patch.object(curves, "schedule", checked):
        swept({"asha": rule}, found, slots, seed)


def _key(trial: Trial, rung: int) -> tuple[bool, float, int]:
    value = trial.best("Minimize", until=rung)
    return value is None, value or 0.0, trial.index
