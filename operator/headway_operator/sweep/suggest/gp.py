"""Gaussian process with expected improvement, of the hypervolume with several objectives.

Source: Optuna's GPSampler (Matern 5/2 with automatic relevance, log EI).
"""

from __future__ import annotations

from importlib.util import find_spec

from optuna.samplers import GPSampler

from headway_operator.sweep.suggest.replay import ask
from headway_operator.sweep.suggest.request import AlgorithmMissing, Request, Suggestion


def suggest(request: Request) -> Suggestion:
    """The configuration that promises most; running trials count with what is expected of them.

    Parameters that are not part of every trial are drawn at random.

    Raises:
        AlgorithmMissing: there is no torch.
    """
    if find_spec("torch") is None:
        raise AlgorithmMissing(
            "gp needs torch, which the operator's image does not have: choose tpe, or run an image "
            "of the operator with `pip install torch`."
        )

    def sampler() -> GPSampler:
        return GPSampler(
            seed=request.number("gp", request.index),
            n_startup_trials=request.algorithm.startup_trials,
            warn_independent_sampling=False,
        )

    return ask(request, sampler)
