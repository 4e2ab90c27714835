"""Who searches: ours as the operator asks it, Optuna as it comes, and what Katib runs.

All are asked for a configuration and told what came of it, in the same order.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any, Protocol

import optuna
from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, CmaEsSampler, GPSampler, NSGAIISampler, TPESampler

from bench.functions import Params, Problem
from headway_api.sweep import SearchAlgorithm
from headway_operator.sweep.space import Choices, Continuum, Dimension, Ladder, Space
from headway_operator.sweep.suggest import Request, Suggestion, suggest
from headway_operator.sweep.trial import Scalar, Trial


class Search(Protocol):
    """Asks and tells, trial by trial; trials are numbered from 0 in the order of asking."""

    def ask(self) -> Params:
        """The configuration of the next trial."""

    def tell(self, number: int, values: Sequence[float]) -> None:
        """What became of a trial."""


class Ours:
    """Each trial from the trials before it, and nothing else.

    Args:
        problem: What is searched.
        algorithm: Name of ours.
        seed: Of the search.
        trials: Known from the beginning.
    """

    def __init__(
        self, problem: Problem, algorithm: str, seed: int, trials: Iterable[Trial] = ()
    ) -> None:
        self.trials = list(trials)
        self._problem, self._seed = problem, seed
        self._algorithm = SearchAlgorithm.model_validate({"name": algorithm})

    def suggested(self) -> Suggestion:
        """What `ask` would answer."""
        return suggest(
            Request(
                parameters=self._problem.parameters,
                directions=["Minimize"] * self._problem.objectives,
                algorithm=self._algorithm,
                index=len(self.trials),
                seed=f"bench-{self._seed}",
                trials=self.trials,
            )
        )

    def ask(self) -> Params:
        """See `Search`."""
        found = self.suggested()
        trial = Trial(len(self.trials), found.params, "Running", attrs=found.attrs)
        self.trials.append(trial)
        return found.params

    def tell(self, number: int, values: Sequence[float]) -> None:
        """See `Search`."""
        trial = self.trials[number]
        self.trials[number] = replace(trial, state="Complete", values=tuple(values))


class Native:
    """One study and one sampler of Optuna's from the first trial to the last, with its defaults."""

    def __init__(self, problem: Problem, algorithm: str, seed: int) -> None:
        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.study = optuna.create_study(
            directions=["minimize"] * problem.objectives, sampler=sampler(algorithm, seed)
        )
        self._space = Space(problem.parameters)
        self._trials: list[optuna.Trial] = []

    def ask(self) -> Params:
        """See `Search`."""
        trial = self.study.ask()
        self._trials.append(trial)
        return self._space.assembled(partial(_natively, trial))

    def tell(self, number: int, values: Sequence[float]) -> None:
        """See `Search`."""
        self.study.tell(self._trials[number], list(values))

    def forget(self) -> None:
        """Have the newest trial fail, so that it counts for nothing."""
        self.study.tell(self._trials[-1], state=optuna.trial.TrialState.FAIL)


def sampler(algorithm: str, seed: int) -> BaseSampler:
    """Optuna's own, as it comes."""
    samplers: Mapping[str, Callable[[], BaseSampler]] = {
        "tpe": lambda: TPESampler(seed=seed),
        "cmaes": lambda: CmaEsSampler(seed=seed, warn_independent_sampling=False),
        "nsgaii": lambda: NSGAIISampler(seed=seed),
        "gp": lambda: GPSampler(seed=seed, warn_independent_sampling=False),
        "qmc": lambda: optuna.samplers.QMCSampler(seed=seed, warn_independent_sampling=False),
        "random": lambda: optuna.samplers.RandomSampler(seed=seed),
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        return samplers[algorithm]()


def _natively(trial: optuna.Trial, name: str, values: Dimension) -> Scalar:
    """A parameter as a script would ask Optuna for it."""
    if isinstance(values, Continuum):
        return float(trial.suggest_float(name, values.low, values.high, log=values.log))
    if isinstance(values, Choices):
        return values.value(values.items.index(trial.suggest_categorical(name, values.items)))
    low, high = values.value(0), values.value(values.size - 1)
    if isinstance(low, int):
        return int(trial.suggest_int(name, low, int(high), step=int(values.step), log=values.log))
    return float(trial.suggest_float(name, low, high, step=values.step))


# --- what Katib runs ------------------------------------------------------------------------------


def used(space: Space, values: Params) -> Params:
    """Of values for all parameters those that count: Katib has no conditional parameters."""
    return space.assembled(lambda name, _: values[name])


class Hyperopt:
    """`tpe` of Katib: hyperopt's, random only for the first request.

    Source: kubeflow/katib, pkg/suggestion/v1beta1/hyperopt/base_service.py; its default settings,
    with parallelTrialCount 1.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        import hyperopt  # noqa: PLC0415 (only benches have it)
        import numpy as np  # noqa: PLC0415

        self._hyperopt, self._dice = hyperopt, np.random.RandomState(seed)
        self._space = Space(problem.parameters)
        places = {name: _hyperopts(name, each) for name, each in self._space.dimensions.items()}
        self._domain = hyperopt.Domain(None, places, pass_expr_memo_ctrl=None)
        self._known = hyperopt.Trials()
        self._asked: list[Any] = []

    def ask(self) -> Params:
        """See `Search`."""
        numbers = self._known.new_trial_ids(1)
        seed = int(self._dice.randint(2**31 - 1))
        (trial,) = self._hyperopt.tpe.suggest(
            numbers, self._domain, self._known, seed, n_startup_jobs=1
        )
        self._asked.append(trial)
        drawn = {name: vals[0] for name, vals in trial["misc"]["vals"].items()}
        dimensions = self._space.dimensions.items()
        return used(self._space, {name: _katibs(each, drawn[name]) for name, each in dimensions})

    def tell(self, number: int, values: Sequence[float]) -> None:
        """See `Search`."""
        trial = self._asked[number]
        trial["result"] = {"loss": values[0], "status": self._hyperopt.STATUS_OK}
        trial["state"] = self._hyperopt.JOB_STATE_DONE
        self._known.insert_trial_docs([trial])
        self._known.refresh()


def _hyperopts(name: str, values: Dimension) -> Any:
    """A parameter as Katib tells hyperopt of it."""
    from hyperopt import hp  # noqa: PLC0415

    if isinstance(values, Choices):
        return hp.choice(name, list(values.items))
    low, high = _ends(values)
    if values.log:
        return hp.loguniform(name, math.log(low), math.log(high))
    if isinstance(values, Continuum):
        return hp.uniform(name, low, high)
    if isinstance(values.low, int) and values.step == 1:
        return hp.uniformint(name, low, high)
    return hp.quniform(name, low, high, values.step)


def _katibs(values: Dimension, drawn: Any) -> Scalar:
    """A value as Katib hands it to a trial."""
    if isinstance(values, Choices):
        return values.value(int(drawn))
    if isinstance(values, Ladder) and isinstance(values.low, int):
        return int(drawn)
    return float(drawn)


class Skopt:
    """`bayesianoptimization` of Katib: scikit-optimize's Gaussian process with gp_hedge.

    Source: kubeflow/katib, pkg/suggestion/v1beta1/skopt/base_service.py; its default settings.
    """

    def __init__(self, problem: Problem, seed: int) -> None:
        import skopt  # noqa: PLC0415

        self._space = Space(problem.parameters)
        places = [_skopts(name, each) for name, each in self._space.dimensions.items()]
        self._optimizer = skopt.Optimizer(
            places,
            base_estimator="GP",
            n_initial_points=10,
            acq_func="gp_hedge",
            acq_optimizer="auto",
            random_state=seed,
        )
        self._asked: list[list[Any]] = []

    def ask(self) -> Params:
        """See `Search`."""
        (drawn,) = self._optimizer.ask(n_points=1)
        self._asked.append(drawn)
        named = zip(self._space.dimensions.items(), drawn, strict=True)
        return used(self._space, {name: _plain(each, value) for (name, each), value in named})

    def tell(self, number: int, values: Sequence[float]) -> None:
        """See `Search`."""
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of a fit that its library says could be better
            self._optimizer.tell([self._asked[number]], [values[0]])


def _skopts(name: str, values: Dimension) -> Any:
    """A parameter as Katib tells scikit-optimize of it: without steps."""
    from skopt.space import Categorical, Integer, Real  # noqa: PLC0415

    if isinstance(values, Choices):
        return Categorical(list(values.items), name=name)
    kind = Integer if isinstance(values.low, int) else Real
    return kind(*_ends(values), "log-uniform" if values.log else "uniform", name=name)


def _plain(values: Dimension, drawn: Any) -> Scalar:
    if isinstance(values, Choices):
        return values.value(values.items.index(drawn))
    return int(drawn) if isinstance(values.low, int) else float(drawn)


def _ends(values: Continuum | Ladder) -> tuple[float, float]:
    if isinstance(values, Continuum):
        return values.low, values.high
    return values.value(0), values.value(values.size - 1)
