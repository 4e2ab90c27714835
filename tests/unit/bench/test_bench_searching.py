"""What `bench-sweep` searches, and how it counts what is found."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest

from bench import sweep_quality, sweep_scale, sweep_target
from bench.curves import Course, saving
from bench.functions import FUNCTIONS, Params, Problem, floats, func2c, hypervolume, tree
from bench.learning import learning_curve
from bench.searches import Native, Ours, used
from bench.sweep_quality import Run
from bench.trainings import PROBLEMS
from headway_operator.sweep.space import Space, check


@pytest.mark.parametrize("name", PROBLEMS)
def test_every_problem_has_a_value_wherever_it_is_searched(name: str) -> None:
    problem = PROBLEMS[name]
    search = Ours(problem, "random", seed=0)
    check(problem.parameters, (), search._algorithm)
    for _ in range(12):
        params = search.ask()
        found = problem.values(params, 1)
        assert len(found) == problem.objectives
        assert all(math.isfinite(value) for value in found), params
        assert found == problem.values(params, 1), "the same seed, the same value"


@pytest.mark.parametrize(
    ("name", "params", "least"),
    [
        ("branin", {"x0": math.pi, "x1": 2.275}, 0.397887),
        (
            "hartmann6",
            dict(
                zip(
                    (f"x{i}" for i in range(6)),
                    (0.20169, 0.150011, 0.476874, 0.275332, 0.311652, 0.6573),
                    strict=True,
                )
            ),
            -3.32237,
        ),
        ("rosenbrock", {f"x{i}": 1.0 for i in range(4)}, 0.0),
        ("levy", {f"x{i}": 1.0 for i in range(4)}, 0.0),
        ("tree", {"x1": 0, "x2": 0, "x4": 0.0, "r8": 0.0}, 0.1),
        ("func2c", {"first": "camel", "second": "camel", "x": 0.0449, "y": -0.3563}, -0.20633),
    ],
)
def test_published_functions_have_their_published_minima(
    name: str, params: Params, least: float
) -> None:
    assert FUNCTIONS[name].values(params, 0)[0] == pytest.approx(least, abs=1e-4)


def test_leaves_of_the_tree_are_the_papers() -> None:
    found = [
        tree({"x1": 0, "x2": 1, "x5": 0.5, "r8": 0.25})[0],
        tree({"x1": 1, "x3": 0, "x6": 0.5, "r9": 0.25})[0],
        tree({"x1": 1, "x3": 1, "x7": 0.5, "r9": 0.25})[0],
    ]
    assert found == pytest.approx([0.7, 0.8, 0.9])


def test_all_later_choices_of_func2c_are_the_same() -> None:
    values = {
        func2c({"first": "camel", "second": name, "x": 0.3, "y": 0.2})
        for name in ("beale", "beale2", "beale3")
    }
    assert len(values) == 1


def test_hypervolume_is_the_area_up_to_the_reference() -> None:
    assert hypervolume([(0.5, 0.5), (0.25, 0.75), (0.75, 0.75)], (1.0, 1.0)) == 0.3125
    assert hypervolume([(2.0, 0.0)], (1.0, 1.0)) == 0.0


class Listed:
    """Searches a list of configurations."""

    def __init__(self, params: Sequence[float]) -> None:
        self._left, self.told = list(params), list[float]()

    def ask(self) -> Params:
        return {"x0": self._left.pop(0)}

    def tell(self, number: int, values: Sequence[float]) -> None:
        assert number == len(self.told)
        self.told += values


def test_under_noise_the_true_value_of_what_looked_best_counts() -> None:
    problem = Problem("noisy", [floats("x0", 0.0, 9.0)], lambda p, _: (float(p["x0"]),), noise=3.0)
    search, run = Listed([4.0, 1.0, 2.0, 3.0]), Run("tpe", "noisy", "ours", 3, 4)
    trials = sweep_quality._searched(search, problem, run)
    looked_best = min(range(4), key=search.told.__getitem__)
    assert sweep_quality._best(problem, run, trials) == (4.0, 1.0, 2.0, 3.0)[looked_best]
    other = Listed([4.0, 1.0, 2.0, 3.0])
    sweep_quality._searched(other, problem, run)
    assert other.told == search.told, "who searches with the same seed sees the same noise"


@pytest.mark.parametrize("parallel", [1, 4])
def test_ours_and_optunas_search_the_same_space(parallel: int) -> None:
    problem = FUNCTIONS["training"]
    for search in (Ours(problem, "tpe", 0), Native(problem, "tpe", 0)):
        run = Run("tpe", "training", "ours", 0, 14, parallel)
        trials = sweep_quality._searched(search, problem, run)
        space = Space(problem.parameters)
        assert len(trials) == 14
        # Optuna says 0.30000000000000004 where ours says 0.3.
        assert all(space.typed(trial.params) is not None for trial in trials)


def test_katibs_configurations_lose_what_is_not_active() -> None:
    everything = {"x1": 0, "x2": 1, "x3": 0, "x4": 0.1, "x5": 0.2, "x6": 0.3, "x7": 0.4}
    everything |= {"r8": 0.5, "r9": 0.6}
    space = Space(FUNCTIONS["tree"].parameters)
    assert used(space, everything) == {"x1": 0, "x2": 1, "x5": 0.2, "r8": 0.5}


def test_the_long_searches_come_first_and_none_is_missing() -> None:
    runs = sweep_quality.runs(["tpe", "gp"], ["hartmann6", "zdt1"], range(3), None, 1)
    assert runs[0].contestant == "katib_skopt"
    assert len(runs) == len(set(runs)) == 3 * (4 + 4 + 3)  # zdt1 has two objectives, so no Katib
    assert {run.trials for run in runs} == {30, 100}


# --- time to target -------------------------------------------------------------------------------


def test_a_real_curve_gets_better_and_is_the_same_each_time() -> None:
    first, again = learning_curve(3, 9), learning_curve(3, 9)
    assert first == again
    assert first.values[-1] < first.values[0]


def test_random_search_itself_needs_less_than_all_of_its_steps() -> None:
    def course(index: int) -> Course:
        return Course([2.0, 1.0 + index])  # the first trial is the best

    found = saving(None, course, trials=8, slots=2)
    assert (found.steps, found.seconds) == (4 / 16, 2 / 8)


def test_what_was_never_found_is_no_number_in_json() -> None:
    never, once = sweep_target.Saving(math.inf, math.inf), sweep_target.Saving(0.1, 0.2)
    row = sweep_target._row("", [once, never, never])
    assert (row["steps_ratio"], row["time_ratio"], row["reached"]) == (None, None, 1)
    assert sweep_target._row("", [once, once, never])["steps_ratio"] == 0.1


# --- scale ----------------------------------------------------------------------------------------


def test_writes_are_the_operators_own_and_refused_ones_count_apart() -> None:
    def entry(verb: str, resource: str, code: int = 200, user: str = sweep_scale.USER) -> dict:
        ref = {"resource": resource, "namespace": sweep_scale.SPACE}
        return {
            "verb": verb,
            "objectRef": ref,
            "user": {"username": user},
            "responseStatus": {"code": code},
        }

    entries = [entry("create", "pods"), entry("create", "pods"), entry("patch", "trainingjobs")]
    entries += [entry("create", "pods", 409), entry("patch", "pods", user="admin")]
    found = sweep_scale.writes(entries, 2)
    assert found["writes_per_trial"] == 1.5
    assert found["writes"] == {"create pods": 1.0, "patch trainingjobs": 0.5}
    assert found["refused_writes"] == 1
