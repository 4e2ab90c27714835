"""What holds for every search algorithm."""

import json
import math
import os
import pickle
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sweep_worlds import (
    ALGORITHMS,
    MIXED,
    SEVERAL,
    SMALL,
    choice,
    complete,
    floats,
    histories,
    ints,
    loss,
    request,
    searched,
    space_of,
    spaces,
)

from headway_api.sweep import Algorithm, SearchParameter
from headway_operator.sweep.space import Space, SpaceError, check, contains
from headway_operator.sweep.suggest import (
    AlgorithmMissing,
    Request,
    SpaceExhausted,
    Suggestion,
    gp,
    suggest,
)
from headway_operator.sweep.trial import Direction, Point, Scalar, State, Trial

ENVIRONMENT = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
EXAMPLES: Mapping[Algorithm, int] = {"gp": 8}
QUICK: tuple[Algorithm, ...] = tuple(name for name in ALGORITHMS if name != "gp")
SEQUENTIAL: tuple[Algorithm, ...] = tuple(name for name in ALGORITHMS if name != "grid")
LEARNING: tuple[Algorithm, ...] = ("tpe", "gp", "cmaes", "nsgaii")


@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_suggestion_is_in_the_space_whatever_has_happened(name: Algorithm) -> None:
    @settings(
        max_examples=EXAMPLES.get(name, 40),
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(st.data())
    def holds(data: st.DataObject) -> None:
        parameters = data.draw(spaces())
        try:
            check(parameters, [], request(parameters, name, 0).algorithm)
        except SpaceError:
            return
        several = name in SEVERAL and data.draw(st.booleans())
        directions: Sequence[Direction] = ("Maximize", "Minimize") if several else ("Maximize",)
        trials = data.draw(histories(parameters, len(directions)))
        asked = request(parameters, name, 12, trials, directions=directions, startup_trials=1)
        try:
            found = suggest(asked)
        except SpaceExhausted:
            assert name == "grid"
            return
        assert contains(parameters, found.params)
        assert json.loads(json.dumps(dict(found.attrs))) == found.attrs
        assert suggest(asked) == found

    holds()


@pytest.mark.parametrize("name", ALGORITHMS)
def test_the_types_of_values_are_those_of_the_space(name: Algorithm) -> None:
    kinds = {
        "lr": float, "momentum": float, "layers": int, "width": int, "dropout": float,
        "optimizer": str, "nesterov": float, "beta": int, "deep": str, "fixed": str,
        "a": int, "b": str, "c": float,
    }  # fmt: skip
    for trial in searched(space_of(name), name, 10):
        for key, value in trial.params.items():
            assert type(value) is kinds.get(key, type(value))


@pytest.mark.parametrize("name", SEVERAL)
def test_several_objectives_are_searched_to_the_end(name: Algorithm) -> None:
    trials: list[Trial] = []
    for index in range(8):
        asked = request(space_of(name), name, index, trials, directions=("Minimize", "Maximize"))
        found = suggest(asked)
        trials.append(complete(index, found, loss(found.params), len(found.params)))
    assert len(trials) == 8


# --- nothing is remembered ----------------------------------------------------------------------


def in_another_process(asked: Request) -> Suggestion:
    """An answer of a process that knows nothing, with another order of hashes."""
    script = (
        "import pickle, sys; from headway_operator.sweep.suggest import suggest;"
        "sys.stdout.buffer.write(pickle.dumps(suggest(pickle.load(sys.stdin.buffer))))"
    )
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        input=pickle.dumps(asked),
        capture_output=True,
        check=False,
        env=ENVIRONMENT,
    )
    assert not done.stderr, done.stderr.decode()
    answer: Suggestion = pickle.loads(done.stdout)
    return answer


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ALGORITHMS)
def test_a_restart_at_any_trial_changes_nothing(name: Algorithm) -> None:
    count = {"grid": 18, "gp": 12}.get(name, 40)  # a gp thinks for a second
    forgetful = {5, count - 4, count - 1}
    settings_ = {} if name in {"pbt", "grid"} else {"population": 6}

    def answer(asked: Request) -> Suggestion:
        return in_another_process(asked) if asked.index in forgetful else suggest(asked)

    once = searched(space_of(name), name, count, **settings_)
    again = searched(space_of(name), name, count, answer=answer, **settings_)
    assert [(t.params, t.attrs) for t in again] == [(t.params, t.attrs) for t in once]


@pytest.mark.parametrize("name", QUICK)
def test_the_order_in_which_trials_are_told_does_not_matter(name: Algorithm) -> None:
    trials = searched(space_of(name), name, 12)
    first = suggest(request(space_of(name), name, 12, trials))
    assert suggest(request(space_of(name), name, 12, trials[::-1])) == first


@pytest.mark.parametrize("name", ["tpe", "random", "gp", "cmaes", "nsgaii", "qmc", "pbt"])
def test_another_seed_tries_something_else(name: Algorithm) -> None:
    first, second = (
        [trial.params for trial in searched(MIXED, name, 6, seed=seed)] for seed in "12"
    )
    assert not any(params in second for params in first)


def test_the_operators_own_process_loads_no_library_for_search() -> None:
    script = (
        "import sys, headway_operator.sweep.suggest;"
        "heavy = {'optuna', 'numpy', 'scipy', 'cmaes', 'torch'};"
        "sys.exit(' '.join(heavy & sys.modules.keys()) or 0)"
    )
    command = [sys.executable, "-c", script]
    done = subprocess.run(command, capture_output=True, check=False, env=ENVIRONMENT)
    assert (done.returncode, done.stderr) == (0, b"")


def test_curves_do_not_travel() -> None:
    trials = [Trial(0, {"a": 1}, "Running", curve=[Point(1, 1.0)] * 64)]
    assert request(SMALL, "grid", 1, trials).trials[0].curve == ()


# --- initial points, other sweeps ---------------------------------------------------------------


@pytest.mark.parametrize("name", ALGORITHMS)
def test_initial_points_come_first_and_are_filled_up(name: Algorithm) -> None:
    points: list[dict[str, Scalar]] = [{"optimizer": "adam", "beta": 3, "lr": 1}, {}]
    if name == "grid":
        points = [{"b": "y", "c": 0.3}, {}]
    trials = searched(space_of(name), name, 4, initial_points=points)
    assert trials[0].params.items() >= points[0].items()
    assert all(contains(space_of(name), trial.params) for trial in trials)
    assert type(trials[0].params.get("lr", 1.0)) is float


def test_an_initial_value_of_what_turns_out_inactive_is_left_out() -> None:
    parameters = [choice("kind", "a", "b"), ints("n", 0, 9, when=("kind", "b"))]
    found = suggest(request(parameters, "tpe", 0, initial_points=[{"kind": "a", "n": 3}]))
    assert found.params == {"kind": "a"}


@pytest.mark.parametrize("name", LEARNING)
def test_trials_of_another_sweep_are_learnt_from(name: Algorithm) -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]

    def far(params: Mapping[str, Scalar]) -> float:
        return abs(float(params["x"]) - 0.9) + abs(float(params["y"]) - 0.1)

    warm = searched(parameters, "random", 60, far, seed="other")
    cold = [far(t.params) for t in searched(parameters, name, 8, far, population=6)]
    known = [far(t.params) for t in searched(parameters, name, 8, far, warm=warm, population=6)]
    assert statistics.median(known) < 0.7 * statistics.median(cold)


@pytest.mark.parametrize("name", LEARNING)
def test_trials_of_another_sweep_that_lie_outside_are_ignored(name: Algorithm) -> None:
    warm = [
        Trial(0, {"x": 5.0, "y": 0.5}, "Complete", (0.0,)),
        Trial(1, {"x": 0.5}, "Complete", (0.0,)),
        Trial(2, {"x": 0.5, "y": 0.5}, "Running", (0.0,)),
        Trial(3, {"x": 0.5, "y": 0.5}, "Failed"),
        Trial(4, {"x": 0.5, "y": 0.5}, "Complete", (0.0, 1.0)),
    ]
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    assert searched(parameters, name, 8, warm=warm) == searched(parameters, name, 8)


# --- odd values ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", QUICK)
def test_trials_that_are_all_equal_do_not_end_the_search(name: Algorithm) -> None:
    trials = searched(space_of(name), name, 18, lambda _: 1.0)
    assert len(trials) == 18


@pytest.mark.parametrize("name", SEQUENTIAL)
def test_a_space_of_single_values_has_one_configuration(name: Algorithm) -> None:
    parameters = [ints("a", 3, 3), choice("b", True), floats("c", 0.5, 0.5)]
    if name == "cmaes":
        parameters += [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    trials = searched(parameters, name, 6, lambda _: 1.0)
    known = {"a": 3, "b": True, "c": 0.5}
    assert all(known.items() <= trial.params.items() for trial in trials)


@pytest.mark.parametrize("direction", ["Minimize", "Maximize"])
@pytest.mark.parametrize("name", LEARNING)
def test_an_infinitely_bad_value_is_worse_than_all_others(
    name: Algorithm, direction: Direction
) -> None:
    """Half of the space diverges: it must become rare, and must not look like the only good one."""
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    worst = math.inf if direction == "Minimize" else -math.inf

    def value(params: Mapping[str, Scalar]) -> float:
        return worst if float(params["x"]) > 0.5 else 1.0

    trials = searched(parameters, name, 48, value, directions=(direction,), population=8)
    late = [float(trial.params["x"]) > 0.5 for trial in trials[24:]]
    assert sum(late) <= 8


@pytest.mark.parametrize("name", LEARNING)
def test_maximizing_goes_up(name: Algorithm) -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    down, up = (
        statistics.mean(
            float(trial.params["x"])
            for trial in searched(
                parameters,
                name,
                40,
                lambda params: float(params["x"]),
                directions=(direction,),
                population=8,
            )[20:]
        )
        for direction in ("Minimize", "Maximize")
    )
    assert up - down > 0.25


@pytest.mark.parametrize("state", ["Failed", "Complete"])
@pytest.mark.parametrize("name", LEARNING)
def test_a_trial_whose_value_is_no_number_teaches_nothing(name: Algorithm, state: State) -> None:
    trials = searched(MIXED, name, 10)
    failed = Trial(10, trials[0].params, state, (math.nan,), attrs=trials[0].attrs)
    asked = request(MIXED, name, 11, [*trials, failed])
    assert suggest(asked) == suggest(request(MIXED, name, 11, trials))


@pytest.mark.parametrize("name", LEARNING)
def test_a_huge_range_of_whole_numbers_takes_no_memory(name: Algorithm) -> None:
    """Optuna would make a list of all of them."""
    parameters = [ints("seed", 0, 2**31), ints("more", 1, 2**53, log=True), floats("x", 0.0, 1.0)]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    trials = searched(parameters, name, 8, lambda params: float(params["x"]), population=4)
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert all(contains(parameters, trial.params) for trial in trials)
    assert grown < 1_000_000, "in KiB"


# --- trials side by side ------------------------------------------------------------------------


def spread(places: Sequence[Mapping[str, Scalar]]) -> float:
    """Mean distance between configurations of the plane."""
    points = [(float(params["x"]), float(params["y"])) for params in places]
    pairs = [(a, b) for i, a in enumerate(points) for b in points[:i]]
    return statistics.mean(math.dist(a, b) for a, b in pairs)


def asked_at_once(name: Algorithm, known: list[Trial], seed: str, *, told: bool) -> float:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    trials = list(known)
    found = []
    for index in range(len(known), len(known) + 8):
        one = suggest(request(parameters, name, index, trials, seed=seed))
        found.append(one.params)
        if told:
            trials.append(Trial(index, one.params, "Running", attrs=one.attrs))
    return spread(found)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["tpe", "gp"])
def test_trials_that_run_side_by_side_are_spread_out(name: Algorithm) -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]

    def value(params: Mapping[str, Scalar]) -> float:
        return (float(params["x"]) - 0.4) ** 2 + (float(params["y"]) - 0.6) ** 2

    seeds = ["1"] if name == "gp" else ["1", "2", "3", "4", "5"]
    with_them, without = [], []
    for seed in seeds:
        known = searched(parameters, "random", 20, value, seed=seed)
        with_them.append(asked_at_once(name, known, seed, told=True))
        without.append(asked_at_once(name, known, seed, told=False))
    print(f"{name}: {statistics.mean(with_them):.3f} told, {statistics.mean(without):.3f} not")
    assert statistics.mean(with_them) > 1.2 * statistics.mean(without)


@pytest.mark.parametrize("name", ["random", "qmc", "cmaes", "nsgaii", "grid"])
def test_no_two_trials_side_by_side_are_the_same(name: Algorithm) -> None:
    trials: list[Trial] = []
    for index in range(8):
        found = suggest(request(space_of(name), name, index, trials))
        trials.append(Trial(index, found.params, "Running", attrs=found.attrs))
    assert len({repr(sorted(trial.params.items())) for trial in trials}) == 8


# --- rungs --------------------------------------------------------------------------------------


def test_tpe_prefers_what_got_further() -> None:
    """At a rung values are small, after a whole training large: only within a rung they compare."""
    parameters = [floats("x", 0.0, 1.0)]
    early = [
        Trial(i, {"x": 0.1 + 0.001 * i}, "Stopped", (0.1,), step=10, until=10) for i in range(20)
    ]
    late = [
        Trial(20 + i, {"x": 0.9 + 0.001 * i}, "Paused", (0.5,), step=30, until=30) for i in range(5)
    ]
    found = [
        float(suggest(request(parameters, "tpe", 25, [*early, *late], seed=str(s))).params["x"])
        for s in range(10)
    ]
    assert statistics.median(found) > 0.6


def test_tpe_takes_a_promoted_trial_for_a_good_one() -> None:
    """It runs, but it was promoted for what it had at the rung."""
    parameters = [floats("x", 0.0, 1.0)]
    others = [
        Trial(i, {"x": 0.1 + 0.001 * i}, "Paused", (1.0,), step=10, until=10) for i in range(20)
    ]
    promoted = [
        Trial(20 + i, {"x": 0.9 + 0.001 * i}, "Running", (0.2,), step=14, until=30)
        for i in range(3)
    ]
    found = [
        float(
            suggest(request(parameters, "tpe", 25, [*others, *promoted], seed=str(s))).params["x"]
        )
        for s in range(10)
    ]
    assert statistics.median(found) > 0.6


def test_a_trial_stopped_without_rungs_counts_with_its_value() -> None:
    """Else a rule such as patience would make the longest training the best one."""
    parameters = [floats("x", 0.0, 1.0)]
    good = [Trial(i, {"x": 0.9 - 0.001 * i}, "Stopped", (0.1,), step=10) for i in range(3)]
    slow = [Trial(3 + i, {"x": 0.1 + 0.001 * i}, "Stopped", (1.0,), step=50) for i in range(20)]
    found = [
        float(suggest(request(parameters, "tpe", 25, [*good, *slow], seed=str(s))).params["x"])
        for s in range(10)
    ]
    assert statistics.median(found) > 0.6


# --- one algorithm at a time --------------------------------------------------------------------


def test_qmc_fills_the_plane_more_evenly_than_random_points() -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]

    def squares(name: Algorithm) -> int:
        trials = searched(parameters, name, 64, lambda _: 0.0)
        return len({(int(float(t.params["x"]) * 8), int(float(t.params["y"]) * 8)) for t in trials})

    assert squares("qmc") == 64
    assert squares("random") < 50


def test_nsgaii_counts_its_generations_over_restarts() -> None:
    trials = searched(MIXED, "nsgaii", 13, population=4)
    assert [trial.attrs["nsgaii"]["generation"] for trial in trials] == [
        0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2, 2, 3,
    ]  # fmt: skip


def test_nsgaii_takes_trials_of_another_sweep_for_its_first_generation() -> None:
    warm = searched(MIXED, "nsgaii", 9, population=3, seed="other")
    assert warm[-1].attrs == generation(2)
    found = suggest(request(MIXED, "nsgaii", 0, warm=warm, population=3))
    assert found.attrs == generation(1)


def test_nsgaii_has_many_generations_behind_it() -> None:
    trials = [
        Trial(i, {"a": 1 + i % 3, "b": "x"}, "Complete", (1.0,), attrs=generation(i // 2))
        for i in range(1200)
    ]
    found = suggest(request(SMALL, "nsgaii", 1200, trials, population=2))
    assert found.attrs == generation(600)


def generation(number: int) -> dict[str, dict[str, int]]:
    return {"nsgaii": {"generation": number}}


def test_cmaes_comes_close_to_the_bottom_of_a_bowl() -> None:
    parameters = [floats("x", -5.0, 5.0), floats("y", -5.0, 5.0), ints("n", -20, 20)]

    def value(params: Mapping[str, Scalar]) -> float:
        return sum((float(v) - 2.0) ** 2 for v in params.values())

    trials = searched(parameters, "cmaes", 200, value)
    assert min(trial.values[0] for trial in trials if trial.values) < 1e-3


def test_cmaes_starts_anew_where_it_stands_still() -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    trials = searched(parameters, "cmaes", 260, lambda _: 1.0, population=4)
    sizes = {len(trial.attrs["cmaes"]["parents"]) for trial in trials}
    assert sizes == {0, 4, 8}


def test_cmaes_wastes_no_trial_of_many_side_by_side() -> None:
    """Twelve at a time, six for a generation: the late ones count in the one after."""
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    trials: list[Trial] = []
    for batch in range(4):
        running: list[Trial] = []
        for index in range(12 * batch, 12 * batch + 12):
            found = suggest(request(parameters, "cmaes", index, [*trials, *running], population=6))
            running.append(Trial(index, found.params, "Running", attrs=found.attrs))
        trials += [
            Trial(t.index, t.params, "Complete", (loss(t.params),), attrs=t.attrs) for t in running
        ]
    used = {index for trial in trials for index in trial.attrs["cmaes"]["parents"]}
    assert used == set(range(36))


def test_cmaes_goes_on_when_somebody_deletes_parents() -> None:
    parameters = [floats("x", 0.0, 1.0), floats("y", 0.0, 1.0)]
    trials = searched(parameters, "cmaes", 30, population=4)[6:]
    assert contains(parameters, suggest(request(parameters, "cmaes", 30, trials)).params)


def test_gp_says_what_to_do_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gp, "find_spec", lambda _: None)
    with pytest.raises(AlgorithmMissing, match="choose tpe"):
        suggest(request(MIXED, "gp", 0))


@pytest.mark.parametrize("name", ["tpe", "random", "cmaes", "nsgaii", "qmc"])
def test_a_thousand_trials_later(name: Algorithm) -> None:
    parameters: list[SearchParameter] = [floats(f"x{i}", 0.0, 1.0) for i in range(8)]
    trials: list[Trial] = []
    for index in range(1000):
        found = suggest(request(parameters, "random", index))
        trials.append(complete(index, found, loss(found.params)))
    if name in {"cmaes", "nsgaii"}:  # whose state grows with their own trials
        trials = searched(parameters, name, 200)
    asked = request(parameters, name, len(trials), trials)
    suggest(asked)
    start = time.perf_counter()
    found = suggest(asked)
    took = 1000 * (time.perf_counter() - start)
    print(f"{name}: {took:.1f} ms at {len(trials)} trials")
    assert Space(parameters).typed(found.params) == found.params
