"""What we do to Optuna's TPE for speed changes nothing of what it finds."""

import random

import numpy as np
import pytest
from optuna.samplers._tpe import _truncnorm
from scipy.special import log_ndtr
from sweep_worlds import MIXED, request

from headway_operator.sweep.suggest import suggest
from headway_operator.sweep.suggest.uniform import completed
from headway_operator.sweep.trial import Trial

OPTUNAS = _truncnorm._log_ndtr


def trials(count: int) -> list[Trial]:
    dice = random.Random(3)
    return [
        Trial(i, completed(request(MIXED, "tpe", i), {}), "Complete", (dice.random(),))
        for i in range(count)
    ]


def test_scipys_logarithm_of_the_normal_distribution_is_optunas() -> None:
    places = np.concatenate([-np.logspace(-6, 3, 400), np.logspace(-6, 3, 400)])
    assert log_ndtr(places) == pytest.approx(OPTUNAS(places), rel=1e-9, abs=1e-15)


def test_a_suggestion_is_the_one_that_optuna_alone_would_make(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = [request(MIXED, "tpe", 40 + n, trials(40)) for n in range(5)]
    fast = [suggest(each).params for each in asked]
    monkeypatch.setattr("headway_operator.sweep.suggest.tpe.log_ndtr", OPTUNAS)
    for found, each in zip(fast, asked, strict=True):
        alone = suggest(each).params
        assert found.keys() == alone.keys()
        for name, value in alone.items():
            assert found[name] == (pytest.approx(value) if isinstance(value, float) else value)


def test_optuna_is_left_as_it_was() -> None:
    suggest(request(MIXED, "tpe", 20, trials(20)))
    assert _truncnorm._log_ndtr is OPTUNAS
