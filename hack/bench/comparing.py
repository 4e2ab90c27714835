"""Who is better, and whether that is luck: the statistics of `bench-sweep`. Pure.

Values are best values of searches, small ones good; those at the same place of two sequences were
found with the same seed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import TypeAlias

import numpy as np
import numpy.typing as npt
from scipy.stats import bootstrap, norm, rankdata, wilcoxon

SIGNIFICANT = 0.05
Vector: TypeAlias = npt.NDArray[np.float64]


def chance(ours: Sequence[float], others: Sequence[float]) -> float:
    """How likely it is that values are that much larger than others by luck alone.

    Wilcoxon's signed-rank test, one-sided, of the differences of ranks within a pair: ranks among
    all values of both, so that only their order counts and no single value for much.
    Sources: Wilcoxon, 1945; Conover and Iman, Rank Transformations as a Bridge, 1981.
    """
    ranks = rankdata([*ours, *others])
    differences = ranks[: len(ours)] - ranks[len(ours) :]
    if not np.any(differences):
        return 1.0
    return float(wilcoxon(differences, alternative="greater", method="asymptotic").pvalue)


def superiority(ours: Sequence[float], others: Sequence[float]) -> float:
    """How often a value is smaller than one of the others, whichever two are taken; ties half.

    0.5 is as good as each other. Source: Vargha and Delaney, 2000 (the effect size A).
    """
    return float(_wins(np.asarray(ours), np.asarray(others)).mean())


def interval(pairs: Sequence[tuple[Sequence[float], Sequence[float]]]) -> tuple[float, float]:
    """Where the mean of the superiorities on several functions lies, with 95 % confidence.

    Percentiles of a bootstrap that draws seeds anew, the same for all functions.
    """
    grids = [_wins(np.asarray(ours), np.asarray(others)) for ours, others in pairs]
    if not grids or len(grids[0]) < 2:
        return 0.0, 1.0
    wins = np.mean(grids, axis=0)

    def mean(seeds: npt.NDArray[np.int_]) -> float:
        return float(wins[np.ix_(seeds, seeds)].mean())

    found = bootstrap(
        (np.arange(len(wins)),),
        mean,
        n_resamples=999,
        vectorized=False,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return float(found.low), float(found.high)


def _wins(ours: Vector, others: Vector) -> Vector:
    """Shape (ours, others): 1 where ours is smaller, 0.5 where they are equal."""
    difference = others[None, :] - ours[:, None]
    return np.asarray(0.5 + 0.5 * np.sign(difference))


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


def pooled(chances: Sequence[float]) -> float:
    """One chance for several functions: sees a small difference that is the same in all of them.

    Source: Stouffer et al., 1949; functions are independent of each other.
    """
    known = [min(max(each, 1e-12), 1 - 1e-12) for each in chances]
    total = float(np.sum(norm.isf(known)))
    return float(norm.sf(total / math.sqrt(len(known)))) if known else 1.0
