"""NSGA-II: generations of children of the best.

Source: Deb et al., A Fast and Elitist Multiobjective Genetic Algorithm, 2002.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from optuna.distributions import BaseDistribution
from optuna.samplers import NSGAIISampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from headway_operator.sweep.suggest.history import Told
from headway_operator.sweep.suggest.replay import ask
from headway_operator.sweep.suggest.request import Request, Suggestion

_POPULATION: Final = 50


class _Replayed(NSGAIISampler):
    """Finds the parents of all generations, one after the other.

    In a study that lasts they are kept as they come up. Asked for the newest first, Optuna goes
    back to the first by recursion, and some hundreds of generations are too deep.
    """

    def infer_relative_search_space(
        self, study: Study, trial: FrozenTrial
    ) -> dict[str, BaseDistribution]:
        for generation in range(1, self.get_trial_generation(study, trial) + 1):
            self.get_parent_population(study, generation)
        return super().infer_relative_search_space(study, trial)


_GENERATION: Final = _Replayed._get_generation_key()
"""Where Optuna keeps to which generation a trial belongs."""


def suggest(request: Request) -> Suggestion:
    """A child of two good trials, or a random configuration in the first generation.

    Trials that nobody's child are, those given and those of other sweeps, belong to the first
    generation.
    """

    def sampler() -> NSGAIISampler:
        return _Replayed(
            seed=request.number("nsgaii", request.index),
            population_size=request.algorithm.population or _POPULATION,
        )

    return ask(request, sampler, attributes=_attributes, kept=_kept)


def _attributes(trial: Told) -> dict[str, Any]:
    found = trial.attrs.get("generation")
    return {_GENERATION: found if isinstance(found, int) else 0}


def _kept(system: Mapping[str, Any]) -> dict[str, Any]:
    return {"nsgaii": {"generation": int(system.get(_GENERATION, 0))}}
