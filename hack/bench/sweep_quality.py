"""How good a sweep's configurations are: ours, replayed for each trial, beside Optuna and Katib."""

from __future__ import annotations

import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from bench import comparing, harness
from bench.functions import Params, Problem, hypervolume
from bench.searches import Hyperopt, Native, Ours, Search, Skopt
from bench.trainings import PROBLEMS, TRAININGS

SINGLE = tuple(name for name, problem in PROBLEMS.items() if problem.objectives == 1)
FRONTS = tuple(name for name, problem in PROBLEMS.items() if problem.objectives == 2)
TRIALS: Mapping[str, int] = {"tpe": 100, "cmaes": 200, "nsgaii": 300, "gp": 30}
SEARCHED: Mapping[str, Sequence[str]] = {
    "tpe": tuple(PROBLEMS),
    "cmaes": tuple(name for name in SINGLE if name not in {"tree", "func2c", *TRAININGS}),
    "nsgaii": (*FRONTS, "sphere"),
    "gp": ("branin", "hartmann6", "noisy-branin", "svm-digits"),  # the slowest by far
}
"""By algorithm: what is searched by it."""
KATIB: Mapping[str, tuple[str, Sequence[str]]] = {
    "tpe": ("katib_hyperopt_tpe", SINGLE),
    "gp": ("katib_skopt", ("branin", "hartmann6")),  # up to a second for each trial
}
"""What Katib offers in an algorithm's place, and what is searched by it."""

Values = dict[str, dict[str, list[float]]]
"""Best values by `algorithm/function` and contestant, in the order of seeds."""


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        algorithm: What searches.
        function: What is minimized.
        contestant: ours, optuna, random or one of Katib's.
        seed: Of the search, of the noise and of the training.
        trials: How many.
        parallel: How many side by side.
    """

    algorithm: str
    function: str
    contestant: str
    seed: int
    trials: int
    parallel: int = 1

    @property
    def pair(self) -> str:
        """What contestants are compared in."""
        return f"{self.algorithm}/{self.function}"


@dataclass(frozen=True)
class Result:
    """What a search has found.

    Attributes:
        run: Which one.
        value: The true value of what it was told to be the best, or its hypervolume times -1.
        seconds: What it took.
        error: Why it found nothing; empty if it did.
    """

    run: Run
    value: float = 0.0
    seconds: float = 0.0
    error: str = ""


def runs(
    algorithms: Iterable[str],
    functions: Sequence[str] | None,
    seeds: Sequence[int],
    trials: int | None,
    parallel: int,
) -> list[Run]:
    """All that is to be run; the long ones first, so that no process waits for another at the end.

    Args:
        algorithms: Which.
        functions: Which; all if None.
        seeds: Which.
        trials: Of each search, if not as many as its algorithm has by default.
        parallel: How many of them side by side.
    """
    found = [
        Run(algorithm, function, contestant, seed, trials or TRIALS[algorithm], parallel)
        for algorithm in sorted(algorithms, key=["gp", "nsgaii", "cmaes", "tpe"].index)
        for function in harness.chosen(SEARCHED[algorithm], functions)
        for contestant in contestants(algorithm, function)
        for seed in seeds
    ]
    return sorted(found, key=lambda run: run.contestant != KATIB["gp"][0])


def contestants(algorithm: str, function: str) -> tuple[str, ...]:
    """Who searches."""
    name, searched = KATIB.get(algorithm, ("", ()))
    return ("ours", "optuna", "random", *((name,) if function in searched else ()))


# --- one search -----------------------------------------------------------------------------------


def result(run: Run) -> Result:
    """Search; a contestant that fails is told of, and has no value."""
    problem = PROBLEMS[run.function]
    start = time.perf_counter()
    try:
        trials = _searched(_search(run, problem), problem, run)
    except Exception as error:
        if run.contestant in {"ours", "optuna", "random"}:
            raise
        return Result(run, error=f"{type(error).__name__}: {error}".splitlines()[0])
    return Result(run, _best(problem, run, trials), time.perf_counter() - start)


def _search(run: Run, problem: Problem) -> Search:
    searches: Mapping[str, Callable[[], Search]] = {
        "ours": lambda: Ours(problem, run.algorithm, run.seed),
        "random": lambda: Ours(problem, "random", run.seed),
        "optuna": lambda: Native(problem, run.algorithm, run.seed),
        "katib_hyperopt_tpe": lambda: Hyperopt(problem, run.seed),
        "katib_skopt": lambda: Skopt(problem, run.seed),
    }
    return searches[run.contestant]()


@dataclass(frozen=True)
class _Trial:
    params: Params
    told: Sequence[float]


def _searched(search: Search, problem: Problem, run: Run) -> list[_Trial]:
    """All trials; in each batch all are asked for before any is told."""
    trials: list[_Trial] = []
    for first in range(0, run.trials, run.parallel):
        size = min(run.parallel, run.trials - first)
        for number, params in enumerate([search.ask() for _ in range(size)], first):
            dice = random.Random(f"{run.seed}/{number}")
            true = problem.values(params, run.seed)
            told = [value + dice.gauss(0.0, problem.noise) for value in true]
            search.tell(number, told)
            trials.append(_Trial(params, told))
    return trials


def _best(problem: Problem, run: Run, trials: Sequence[_Trial]) -> float:
    if problem.objectives > 1:
        return -hypervolume([trial.told for trial in trials], problem.reference)
    best = min(trials, key=lambda trial: trial.told[0])
    return problem.values(best.params, run.seed)[0]


# --- all searches ---------------------------------------------------------------------------------


@dataclass
class Findings:
    """What all searches together say.

    Attributes:
        values: Best values.
        failures: Contestants that could not take part, and why.
    """

    values: Values = field(default_factory=dict)
    failures: dict[str, str] = field(default_factory=dict)

    @classmethod
    def of(cls, results: Iterable[Result]) -> Findings:
        """Put together; a contestant that failed once in a pair is left out of it."""
        found, by_seed = cls(), sorted(results, key=lambda each: each.run.seed)
        for each in by_seed:
            if each.error:
                found.failures[f"{each.run.contestant} {each.run.pair}"] = each.error
        for each in by_seed:
            if f"{each.run.contestant} {each.run.pair}" not in found.failures:
                pair = found.values.setdefault(each.run.pair, {})
                pair.setdefault(each.run.contestant, []).append(each.value)
        return found

    def worse(self, one: str, other: str) -> list[str]:
        """Where a contestant's values are significantly larger than another's.

        Holm's correction is over all functions of all algorithms that both have searched.
        """
        return comparing.holm(
            {
                pair: comparing.chance(of[one], of[other])
                for pair, of in self.values.items()
                if one in of and other in of
            }
        )

    def lists(self) -> dict[str, list[str]]:
        """Where ours is worse or better than the others."""
        names = {name: name for of in self.values.values() for name in of if name != "ours"}
        found = {f"worse_than_{name}": self.worse("ours", name) for name in names}
        return found | {f"better_than_{name}": self.worse(name, "ours") for name in names}

    def by_pair(self) -> dict[str, dict[str, Any]]:
        """Medians of all contestants on each function, and how ours compares with Optuna."""
        return {
            pair: {
                **{name: harness.median(values) for name, values in of.items()},
                "wins": comparing.superiority(of["ours"], of["optuna"]),
                "p_worse": comparing.chance(of["ours"], of["optuna"]),
                "p_better": comparing.chance(of["optuna"], of["ours"]),
            }
            for pair, of in self.values.items()
        }

    def by_algorithm(self) -> dict[str, dict[str, Any]]:
        """How ours compares with Optuna on all functions of an algorithm together."""
        algorithms = dict.fromkeys(pair.partition("/")[0] for pair in self.values)
        return {name: self._summary(f"{name}/") for name in algorithms}

    def _summary(self, prefix: str) -> dict[str, Any]:
        ours_and_optunas = [
            (of["ours"], of["optuna"])
            for pair, of in self.values.items()
            if pair.startswith(prefix)
        ]
        medians = [(statistics.median(a), statistics.median(b)) for a, b in ours_and_optunas]
        wins = [comparing.superiority(a, b) for a, b in ours_and_optunas]
        worse = [comparing.chance(a, b) for a, b in ours_and_optunas]
        return {
            "functions": len(wins),
            "median_better": sum(a < b for a, b in medians),
            "median_worse": sum(a > b for a, b in medians),
            "wins": statistics.fmean(wins),
            "wins_95": list(comparing.interval(ours_and_optunas)),
            "p_worse": comparing.pooled(worse),
            "p_better": comparing.pooled([comparing.chance(b, a) for a, b in ours_and_optunas]),
        }
