"""How good a sweep's configurations are: ours, replayed for each trial, beside Optuna's own run."""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any, get_args

import optuna
import typer
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler
from rich.console import Console
from rich.table import Table
from scipy.stats import mannwhitneyu

from bench import harness
from bench.functions import PROBLEMS, Problem, hypervolume
from headway_api.sweep import Algorithm, SearchAlgorithm
from headway_operator.sweep.space import Choices, Continuum, Dimension, Space
from headway_operator.sweep.suggest import Request, suggest
from headway_operator.sweep.trial import Scalar, Trial

SIGNIFICANT = 0.05
REFERENCE = (1.1, 11.0)
"""Of the hypervolume; the second objective of ZDT is at most 10."""
TRIALS: Mapping[str, int] = {"tpe": 100, "cmaes": 200, "nsgaii": 300, "gp": 30}
FUNCTIONS: Mapping[str, Sequence[str]] = {
    "tpe": tuple(PROBLEMS),
    "cmaes": tuple(name for name, problem in PROBLEMS.items() if problem.objectives == 1),
    "nsgaii": tuple(PROBLEMS),
    "gp": ("branin", "hartmann6", "training"),  # a second for each trial, so not all of them
}

Values = Mapping[str, Mapping[str, Sequence[float]]]
"""Best values by `algorithm/function` and contestant."""


@dataclass(frozen=True)
class Run:
    """One search.

    Attributes:
        algorithm: What searches.
        function: What is minimized.
        contestant: ours, optuna or random.
        seed: Of the search.
        trials: How many.
        parallel: How many side by side.
    """

    algorithm: str
    function: str
    contestant: str
    seed: int
    trials: int
    parallel: int = 1


# --- contestants ---------------------------------------------------------------------------------


def ours(problem: Problem, run: Run, algorithm: str) -> list[tuple[float, ...]]:
    """Each trial from the trials before it, and nothing else."""
    assert algorithm in get_args(Algorithm)
    settings = SearchAlgorithm.model_validate({"name": algorithm})
    trials: list[Trial] = []
    for first in range(0, run.trials, run.parallel):
        batch: list[Trial] = []
        for index in range(first, min(first + run.parallel, run.trials)):
            found = suggest(
                Request(
                    parameters=problem.parameters,
                    directions=["Minimize"] * problem.objectives,
                    algorithm=settings,
                    index=index,
                    seed=f"bench-{run.seed}",
                    trials=[*trials, *batch],
                )
            )
            batch.append(Trial(index, found.params, "Running", attrs=found.attrs))
        trials += [
            Trial(t.index, t.params, "Complete", problem.values(t.params), attrs=t.attrs)
            for t in batch
        ]
    return [trial.values or () for trial in trials]


def optunas(problem: Problem, run: Run) -> list[tuple[float, ...]]:
    """One study and one sampler from the first trial to the last."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = Space(problem.parameters)
    study = optuna.create_study(
        directions=["minimize"] * problem.objectives, sampler=_sampler(run, space, problem)
    )
    for first in range(0, run.trials, run.parallel):
        batch = []
        for _ in range(first, min(first + run.parallel, run.trials)):
            trial = study.ask()
            batch.append((trial, space.assembled(partial(_native, trial))))
        for trial, params in batch:
            study.tell(trial, list(problem.values(params)))
    return [tuple(trial.values) for trial in study.trials]


def _sampler(run: Run, space: Space, problem: Problem) -> BaseSampler:
    if run.algorithm == "tpe":
        alone = problem.objectives > 1
        return TPESampler(
            seed=run.seed, multivariate=not alone, group=space.conditional and not alone
        )
    if run.algorithm == "cmaes":
        return CmaEsSampler(seed=run.seed, warn_independent_sampling=False)
    if run.algorithm == "nsgaii":
        return NSGAIISampler(seed=run.seed)
    return GPSampler(seed=run.seed, warn_independent_sampling=False)


def _native(trial: optuna.Trial, name: str, values: Dimension) -> Scalar:
    """A parameter as a script would ask Optuna for it."""
    if isinstance(values, Continuum):
        return float(trial.suggest_float(name, values.low, values.high, log=values.log))
    if isinstance(values, Choices):
        return values.value(values.items.index(trial.suggest_categorical(name, values.items)))
    low, high = values.value(0), values.value(values.size - 1)
    if isinstance(low, int):
        return int(trial.suggest_int(name, low, int(high), step=int(values.step), log=values.log))
    return float(trial.suggest_float(name, low, high, step=values.step))


def result(run: Run) -> tuple[Run, float, float]:
    """Search.

    Returns:
        With the run: its best value, or its hypervolume times -1; and the seconds it took.
    """
    os.environ["OMP_NUM_THREADS"] = "1"
    problem = PROBLEMS[run.function]
    start = time.perf_counter()
    contestants: Mapping[str, Callable[[], list[tuple[float, ...]]]] = {
        "ours": lambda: ours(problem, run, run.algorithm),
        "random": lambda: ours(problem, run, "random"),
        "optuna": lambda: optunas(problem, run),
    }
    values = contestants[run.contestant]()
    took = time.perf_counter() - start
    if problem.objectives == 1:
        return run, min(value for (value,) in values), took
    return run, -hypervolume(values, REFERENCE), took


# --- who is better -------------------------------------------------------------------------------


def holm(chances: Mapping[str, float]) -> list[str]:
    """Names of the differences that are significant together.

    Source: Holm, A Simple Sequentially Rejective Multiple Test Procedure, 1979.
    """
    found: list[str] = []
    for place, name in enumerate(sorted(chances, key=lambda each: (chances[each], each))):
        if chances[name] > SIGNIFICANT / (len(chances) - place):
            break
        found.append(name)
    return sorted(found)


def chance(of: Mapping[str, Sequence[float]], one: str, other: str) -> float:
    """How likely a contestant's values are that much larger than another's by luck alone.

    Source: Mann and Whitney, 1947; one-sided, for this comparison by itself.
    """
    return float(mannwhitneyu(of[one], of[other], alternative="greater").pvalue)


def worse(values: Values, one: str, other: str) -> list[str]:
    """Where a contestant's values are significantly larger than another's."""
    return holm({pair: chance(of, one, other) for pair, of in values.items()})


def _table(values: Values) -> Table:
    table = Table("", title="Median of the best value", title_justify="left")
    contestants = ("ours", "optuna", "random")
    for name in (*contestants, "p(ours worse than optuna)"):
        table.add_column(name, justify="right")
    for pair, of in values.items():
        medians = [f"{statistics.median(of[name]):.4g}" for name in contestants]
        table.add_row(pair, *medians, f"{chance(of, 'ours', 'optuna'):.3f}")
    return table


def _collect(
    runs: Sequence[Run], answers: Iterable[tuple[Run, float, float]]
) -> tuple[dict[str, dict[str, list[float]]], dict[str, float]]:
    values: dict[str, dict[str, list[float]]] = {}
    seconds: dict[str, float] = {}
    with harness.Bar(len(runs)) as bar:
        for run, value, took in answers:
            with bar.doing(f"{run.algorithm} {run.function}"):
                pair = f"{run.algorithm}/{run.function}"
                values.setdefault(pair, {}).setdefault(run.contestant, []).append(value)
                if run.contestant == "ours":
                    each = took / run.trials
                    seconds[run.algorithm] = max(seconds.get(run.algorithm, 0.0), each)
    return values, seconds


def main(
    only: Annotated[list[str] | None, typer.Option(help="Algorithms: tpe, cmaes, …")] = None,
    function: Annotated[list[str] | None, typer.Option(help="Functions; all if unset.")] = None,
    seeds: Annotated[int, typer.Option(help="Runs of each contestant.")] = 20,
    first: Annotated[int, typer.Option(help="The first seed.")] = 0,
    parallel: Annotated[int, typer.Option(help="Trials side by side.")] = 1,
    jobs: Annotated[int, typer.Option(help="Processes.")] = 2,
    quick: Annotated[bool, typer.Option(help="A look: five seeds, tpe only.")] = False,
) -> None:
    """Minimize published test functions with as many trials by ours, Optuna's own and at random.

    Ours is asked for each trial as the operator asks: from nothing but the trials before it.
    Optuna's own keeps its study and sampler from the first trial to the last.

    For example:

        make bench-sweep

        make bench-sweep ARGS="--only cmaes --seeds 40"
    """
    names = harness.chosen(TRIALS, ["tpe"] if quick and not only else only)
    runs = [
        Run(algorithm, each, contestant, seed, TRIALS[algorithm], parallel)
        for algorithm in names
        for each in harness.chosen(FUNCTIONS[algorithm], function)
        for seed in range(first, first + (5 if quick else seeds))
        for contestant in ("ours", "optuna", "random")
    ]
    os.environ["OMP_NUM_THREADS"] = "1"
    with ProcessPoolExecutor(jobs) as pool:
        values, seconds = _collect(runs, pool.map(result, runs))
    results: dict[str, Any] = {
        "worse_than_optuna": worse(values, "ours", "optuna"),
        "better_than_optuna": worse(values, "optuna", "ours"),
        "worse_than_random": worse(values, "ours", "random"),
        "better_than_random": worse(values, "random", "ours"),
        "longest_mean_suggestion_seconds": {k: round(v, 4) for k, v in seconds.items()},
    }
    Console(width=120).print(_table(values))
    sys.stdout.write(json.dumps({"sweep": results}) + "\n")


if __name__ == "__main__":
    harness.run(main)
