"""Rungs and brackets: where trials pause, and how many start, beside the papers and Optuna."""

from __future__ import annotations

from itertools import pairwise

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_api.sweep import Halving, Hyperband
from headway_operator.sweep.stopping import hyperband
from headway_operator.sweep.stopping.rungs import rungs


@pytest.mark.parametrize(
    ("low", "high", "eta", "steps"),
    [
        (1, 81, 3, (1, 3, 9, 27, 81)),
        (1, 100, 3, (1, 3, 9, 27, 100)),
        (10, 1000, 3, (10, 30, 90, 270, 1000)),
        (1, 243, 3, (1, 3, 9, 27, 81, 243)),  # log(243) / log(3) is 4.999… in floats
        (1, 1000, 10, (1, 10, 100, 1000)),
        (10, 25, 3, (10, 25)),
        (7, 7, 2, (7,)),
    ],
)
def test_rungs_are_eta_apart_and_the_last_is_max_steps(
    low: int, high: int, eta: int, steps: tuple[int, ...]
) -> None:
    assert rungs(Halving(min_steps=low, max_steps=high, reduction_factor=eta)) == steps


@given(low=st.integers(1, 50), factor=st.integers(1, 2**40), eta=st.integers(2, 64))
def test_there_are_as_many_rungs_as_in_the_papers(low: int, factor: int, eta: int) -> None:
    steps = rungs(Halving(min_steps=low, max_steps=low * factor, reduction_factor=eta))
    s_max = 0
    while eta ** (s_max + 1) <= factor:
        s_max += 1
    named_too = factor > 1 and s_max == 0  # the first rung that was asked for
    assert len(steps) == s_max + 1 + named_too
    assert all(b % a == 0 and b // a == eta for a, b in pairwise(steps[:-1]))
    assert steps[0] == low
    assert steps[-1] == low * factor


def layout(low: int, high: int, eta: int) -> list[list[tuple[int, int]]]:
    """(n_i, r_i) of each rung of each bracket."""
    rule = Hyperband(min_steps=low, max_steps=high, reduction_factor=eta)
    return [
        [(each.size // eta**i, step) for i, step in enumerate((*each.pauses, high))]
        for each in hyperband.iteration(rule)
    ]


TABLE_1 = [
    [(81, 1), (27, 3), (9, 9), (3, 27), (1, 81)],
    [(27, 3), (9, 9), (3, 27), (1, 81)],
    [(9, 9), (3, 27), (1, 81)],
    [(6, 27), (2, 81)],
    [(5, 81)],
]
"""Li et al., JMLR 18 (2018), table 1: (n_i, r_i) for R = 81 and eta = 3."""


def test_hyperband_has_the_brackets_of_the_papers_table() -> None:
    """The table rounds (s_max + 1) / (s + 1) down before it multiplies, algorithm 1 does not."""
    ours = layout(1, 81, 3)
    assert [bracket[0][0] for bracket in ours] == [81, 34, 15, 8, 5]
    assert ours[0] == TABLE_1[0]
    assert ours[-1] == TABLE_1[-1]
    for mine, table in zip(ours, TABLE_1, strict=True):
        assert [step for _, step in mine] == [step for _, step in table]
        assert all(n >= least for (n, _), (least, _) in zip(mine, table, strict=True))
        assert mine[-1] == table[-1]


@given(low=st.integers(1, 20), levels=st.integers(1, 6), eta=st.integers(2, 6))
def test_each_bracket_of_hyperband_costs_about_its_budget(low: int, levels: int, eta: int) -> None:
    """B = (s_max + 1) R, were each rung to start over, but for what rounding adds or takes away."""
    high = low * eta**levels
    for bracket in layout(low, high, eta):
        spent, budget = sum(n * r for n, r in bracket), (levels + 1) * high
        assert budget / 2 < spent < budget + len(bracket) * bracket[0][1]


@given(
    low=st.integers(1, 20), levels=st.integers(1, 5), eta=st.integers(2, 6), rest=st.floats(0, 0.9)
)
def test_brackets_start_with_as_many_trials_as_optunas(
    low: int, levels: int, eta: int, rest: float
) -> None:
    high = int(low * eta**levels * (1 + rest * (eta - 1)))
    pruner = optuna.pruners.HyperbandPruner(
        min_resource=low, max_resource=high, reduction_factor=eta
    )
    pruner._n_brackets = levels + 1  # theirs is a float's floor(log)
    optunas = [pruner._calculate_trial_allocation_budget(n) for n in range(levels + 1)]
    assert [bracket[0][0] for bracket in layout(low, high, eta)] == optunas
