"""Who is better, and by how much it may be luck."""

from __future__ import annotations

import random

import pytest

from bench import comparing
from bench.sweep_quality import Findings, Result, Run


def values(seed: int, shift: float = 0.0, count: int = 20) -> list[float]:
    dice = random.Random(seed)
    return [dice.gauss(shift, 1.0) for _ in range(count)]


def test_clearly_larger_values_are_no_luck_and_smaller_ones_are_no_harm() -> None:
    assert comparing.chance(values(1, 3.0), values(2)) < 0.001
    assert comparing.chance(values(1), values(2, 3.0)) > 0.999


def test_only_the_order_of_values_counts() -> None:
    ours, others = values(3, 0.5), values(4)
    stretched = [[value**3 * 1000 for value in each] for each in (ours, others)]
    assert comparing.chance(*stretched) == comparing.chance(ours, others)


def test_what_both_have_in_common_by_seed_does_not_hide_a_difference() -> None:
    """A paired test: trainings of the same split, some of which are much harder than others."""
    common = values(5, count=20)
    ours = [100 * value + 0.1 for value in common]
    assert comparing.chance(ours, [100 * value for value in common]) < 0.001


def test_equal_values_are_not_worse() -> None:
    assert comparing.chance([0.5] * 20, [0.5] * 20) == 1.0


def test_luck_alone_looks_significant_as_often_as_it_should() -> None:
    chances = [comparing.chance(values(n), values(n + 10_000)) for n in range(1000)]
    share = sum(chance <= 0.05 for chance in chances) / len(chances)
    assert 0.03 < share < 0.07, "the test is too strict or too lenient"


def test_superiority_is_the_share_of_wins_with_ties_as_halves() -> None:
    assert comparing.superiority([1.0, 2.0], [2.0, 3.0]) == pytest.approx(3.5 / 4)
    assert comparing.superiority([1.0, 1.0], [1.0, 1.0]) == 0.5


def test_the_interval_holds_what_it_is_of() -> None:
    pairs = [(values(n), values(n + 100)) for n in range(5)]
    low, high = comparing.interval(pairs)
    mean = sum(comparing.superiority(*pair) for pair in pairs) / 5
    assert low < mean < high
    assert high - low < 0.3


def test_holm_asks_less_of_each_after_the_smallest() -> None:
    # Thresholds 0.05/4, /3, /2, /1; after the first that fails, nothing counts.
    assert comparing.holm({"a": 0.012, "b": 0.016, "c": 0.03, "d": 0.04}) == ["a", "b"]
    assert comparing.holm({}) == []


def test_a_small_difference_everywhere_is_seen_when_all_functions_are_taken_together() -> None:
    chances = [0.2] * 12
    assert not comparing.holm({str(n): chance for n, chance in enumerate(chances)})
    assert comparing.pooled(chances) < 0.01
    assert comparing.pooled([0.5] * 12) == pytest.approx(0.5)
    assert comparing.pooled([1.0]) < 1.0, "a chance of 1 has no infinite weight"


def found(of: dict[str, list[float]], pair: str = "tpe/sphere", error: str = "") -> list[Result]:
    algorithm, _, function = pair.partition("/")
    return [
        Result(Run(algorithm, function, name, seed, 10), value, error=error if seed else "")
        for name, each in of.items()
        for seed, value in enumerate(each)
    ]


def test_lists_name_the_functions_on_which_ours_is_worse_or_better() -> None:
    good, bad = values(6), values(7, 5.0)
    results = found({"ours": bad, "optuna": good, "random": bad}, "tpe/sphere")
    results += found({"ours": good, "optuna": bad, "random": bad}, "tpe/ackley")
    lists = Findings.of(results).lists()
    assert lists["worse_than_optuna"] == ["tpe/sphere"]
    assert lists["better_than_optuna"] == lists["better_than_random"] == ["tpe/ackley"]
    assert lists["worse_than_random"] == []


def test_values_are_paired_by_seed_in_whatever_order_they_come() -> None:
    results = found({"ours": [1.0, 2.0, 3.0], "optuna": [1.5, 2.5, 3.5]})
    random.Random(0).shuffle(results)
    of = Findings.of(results).values["tpe/sphere"]
    assert of == {"ours": [1.0, 2.0, 3.0], "optuna": [1.5, 2.5, 3.5]}


def test_a_contestant_that_fails_on_one_seed_is_left_out_and_named() -> None:
    results = found({"ours": [1.0, 2.0], "optuna": [1.0, 2.0]})
    results += found({"katib_skopt": [0.0, 0.0]}, error="ValueError: no")
    findings = Findings.of(results)
    assert "katib_skopt" not in findings.values["tpe/sphere"]
    assert findings.failures == {"katib_skopt tpe/sphere": "ValueError: no"}
    assert "worse_than_katib_skopt" not in findings.lists()
