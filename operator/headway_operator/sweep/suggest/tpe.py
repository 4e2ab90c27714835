"""Tree-structured Parzen estimator, multivariate.

Source: Bergstra et al., NeurIPS 2011; Falkner et al., BOHB, ICML 2018; Watanabe, arXiv 2304.11127.
"""

from __future__ import annotations

from optuna.samplers import TPESampler

from headway_operator.sweep.suggest.replay import ask
from headway_operator.sweep.suggest.request import Request, Suggestion


def suggest(request: Request) -> Suggestion:
    """A configuration that is much likelier among the good trials than among the others.

    Running trials count as bad ones (constant liar): asking for several spreads them out. Values
    taken at rungs rank below those of whole trainings, and among each other by rung first. With
    several objectives the parameters are modelled one by one, as Optuna does.
    """
    alone = len(request.directions) > 1

    def sampler() -> TPESampler:
        return TPESampler(
            seed=request.number("tpe", request.index),
            n_startup_trials=request.algorithm.startup_trials,
            multivariate=not alone,
            group=request.space.conditional and not alone,
            constant_liar=True,
        )

    return ask(request, sampler, pruned=True)
