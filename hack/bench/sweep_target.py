"""How soon the rules that stop trials find what random search finds, with 8 trials side by side."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from bench import harness
from bench.curves import Course, Saving, courses, saving
from bench.learning import learning_curve

RULES: Sequence[str] = ("asha", "hyperband", "successiveHalving", "none")
"""`none` is random search itself: when it comes upon its best trial."""
CURVES = 192
"""Real ones, of which each seed takes some in an order of its own."""
TRIALS = 32
STEPS = 81
Curves = Mapping[str, Callable[[int], Callable[[int], Course]]]
"""For a seed, and then the index of a trial, what becomes of it."""


def curve(number: int) -> Course:
    """One of the real ones, from a process pool."""
    return learning_curve(number, STEPS)


def drawn(pool: Sequence[Course], seed: int) -> Callable[[int], Course]:
    """The pool in an order of the seed's own."""
    order = random.Random(f"target/{seed}").sample(range(len(pool)), len(pool))
    return lambda index: pool[order[index]]


def savings(rule: str, curves: Callable[[int], Course], trials: int) -> Saving:
    """What a rule takes on the curves of one seed."""
    settings = {"minSteps": 1, "maxSteps": STEPS, "reductionFactor": 3}
    return saving(None if rule == "none" else {rule: settings}, curves, trials)


def target(pool: Sequence[Course], seeds: Sequence[int], trials: int) -> dict[str, dict[str, Any]]:
    """Figures of all rules, on real curves and on modelled ones."""
    kinds: Curves = {
        "": lambda seed: drawn(pool, seed),
        "model_": lambda seed: courses(seed, STEPS),
    }
    found: dict[str, dict[str, Any]] = {}
    for rule in RULES:
        row = found.setdefault(rule, {})
        for kind, of_seed in kinds.items():
            all_seeds = [savings(rule, of_seed(seed), trials) for seed in seeds]
            row |= _row(kind, all_seeds)
    return found


def _row(kind: str, all_seeds: Sequence[Saving]) -> dict[str, Any]:
    """Medians over the seeds; a seed on which it was not found counts as never."""
    steps = [each.steps for each in all_seeds]
    figures = {
        "steps_ratio": harness.median(steps),
        "steps_ratio_p90": harness.percentile(steps, 0.9),
        "time_ratio": harness.median(each.seconds for each in all_seeds),
    }
    return {
        **{f"{kind}{name}": _finite(value) for name, value in figures.items()},
        f"{kind}reached": sum(math.isfinite(each) for each in steps),
        f"{kind}seeds": len(steps),
    }


def _finite(value: float | None) -> float | None:
    """JSON has no infinity."""
    return None if value is None or math.isinf(value) else value
