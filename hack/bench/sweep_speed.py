"""What a suggestion takes when many trials are known: ours from all of them, Optuna's next one."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from bench import harness
from bench.functions import FUNCTIONS, Problem
from bench.searches import Native, Ours, Search, sampler

KNOWN = 1000
ALGORITHMS: Sequence[str] = ("tpe", "cmaes", "nsgaii", "qmc", "random", "gp")
SLOW = "gp"
"""Its own first thousand trials would take hours: it is asked after as many random ones."""
PROBLEM = "training"
"""Three ranges of numbers with log, one with steps, choices, and one that depends on them."""
SEED = 0


def speed(algorithm: str, known: int, rounds: int) -> dict[str, Any]:
    """Median milliseconds of a suggestion, asked in turns.

    Ours includes everything from the list of trials to the configuration. Optuna's own study and
    sampler have been there since the first trial; what it is asked is taken back each time.
    """
    problem = FUNCTIONS[PROBLEM]
    ours, native = _known(problem, algorithm, known)
    times: dict[str, list[float]] = {"ours": [], "optuna": []}
    for _ in range(rounds):
        times["ours"].append(_milliseconds(ours.suggested))
        times["optuna"].append(_milliseconds(native.ask))
        native.forget()
    return {
        "suggestion_ms": harness.median(times["ours"]),
        "suggestion_p90_ms": harness.percentile(times["ours"], 0.9),
        "optuna_suggestion_ms": harness.median(times["optuna"]),
    }


def _known(problem: Problem, algorithm: str, known: int) -> tuple[Ours, Native]:
    first = "random" if algorithm == SLOW else algorithm
    ours, native = Ours(problem, first, SEED), Native(problem, first, SEED)
    for search in (ours, native):
        _search(search, problem, known)
    if first == algorithm:
        return ours, native
    native.study.sampler = sampler(algorithm, SEED)
    return Ours(problem, algorithm, SEED, ours.trials), native


def _search(search: Search, problem: Problem, trials: int) -> None:
    for number in range(trials):
        search.tell(number, problem.values(search.ask(), SEED))


def _milliseconds(ask: Callable[[], object]) -> float:
    start = time.perf_counter()
    ask()
    return (time.perf_counter() - start) * 1000
