"""What the rules with rungs save: random learning curves, 8 trials side by side."""

from __future__ import annotations

import statistics
from typing import Any

import pytest

from bench.curves import cost

SEEDS = range(20)


@pytest.mark.parametrize("rule", ["asha", "hyperband", "successiveHalving"])
def test_a_quarter_of_random_searchs_steps_finds_what_it_finds(rule: str) -> None:
    stopping: dict[str, Any] = {rule: {"minSteps": 1, "maxSteps": 81, "reductionFactor": 3}}
    shares = [cost(stopping, seed, trials=32, steps=81) for seed in SEEDS]
    median = statistics.median(shares)
    told = " ".join(f"{share:.3f}" for share in shares)
    print(f"{rule}: median {median:.3f} of random search's steps; seeds 0 to 19: {told}")
    assert median <= 0.25
