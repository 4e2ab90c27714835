"""CMA-ES with margin for whole numbers, restarted with twice the population where it stands still.

Source: Hansen, The CMA Evolution Strategy: A Tutorial, arXiv 1604.00772; Hamano et al., CMA-ES with
Margin, GECCO 2022; Auger and Hansen, IPOP, CEC 2005; Nomura et al., WS-CMA-ES, AAAI 2021.

Optuna keeps its optimizer pickled with a trial, where whoever may edit a trial could make the
operator run anything. We keep for each trial its place in the search distribution, and which trials
the distribution was made of: the optimizer is made anew by telling it all generations again.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

import numpy as np
import numpy.typing as npt
from cmaes import CMAwM, get_warm_start_mgd

from headway_operator.sweep.space import Continuum, Dimension, Ladder, ranges
from headway_operator.sweep.suggest.history import Told, told
from headway_operator.sweep.suggest.request import Request, Suggestion
from headway_operator.sweep.suggest.uniform import drawn
from headway_operator.sweep.trial import Scalar

Numbers: TypeAlias = Mapping[str, Continuum | Ladder]
Vector: TypeAlias = npt.NDArray[np.float64]
_SIGMA: Final = 1 / 6
_MARGIN_UP_TO: Final = 1000
"""Ladders with more steps than this are continua that are rounded."""
_LEARNT_FROM: Final = 0.1
"""Share of the trials of other sweeps that make up the first distribution (WS-CMA-ES)."""


@dataclass(frozen=True)
class _Sample:
    """A trial as the optimizer knows it.

    Attributes:
        index: of the trial.
        generation: of the distribution that it was drawn from.
        place: in the unit cube, as drawn.
        parents: indices of the trials that its generation's distribution was made of.
        loss: its value, smaller is better; None as long as there is none.
    """

    index: int
    generation: int
    place: Sequence[float]
    parents: Sequence[int]
    loss: float | None


@dataclass(frozen=True)
class _State:
    """A search distribution.

    Attributes:
        optimizer: has it.
        generation: its number.
        since: number of the first since the latest restart.
        parents: indices of the trials that it was made of.
    """

    optimizer: CMAwM
    generation: int = 0
    since: int = 0
    parents: Sequence[int] = ()


def suggest(request: Request) -> Suggestion:
    """A configuration from the search distribution; choices and conditional ones are random."""
    numbers = ranges(request.space)
    trials = told(request)
    with np.errstate(all="ignore"):  # what came out is looked at
        state = _state(request, numbers, trials)
        state.optimizer.reseed_rng(request.number("cmaes", request.index))
        coordinates, place = state.optimizer.ask()
    shares = {name: float(x) for name, x in zip(numbers, coordinates, strict=True)}
    rng = request.random("cmaes", request.index)

    def pick(name: str, values: Dimension) -> Scalar:
        return values.at(shares[name]) if name in shares else drawn(values, rng)

    own = {
        "generation": state.generation,
        "place": [float(x) for x in place],
        "parents": list(state.parents),
    }
    return Suggestion(request.space.assembled(pick), {"cmaes": own})


def _state(request: Request, numbers: Numbers, trials: Sequence[Told]) -> _State:
    """The distribution to draw from: that of the latest generation, or the next if that is full.

    Trials that are late, because others run beside them, count in the generation after theirs:
    none is run in vain.
    """
    sign = 1.0 if request.directions[0] == "Minimize" else -1.0
    drawn_here = (_sample(each, sign, len(numbers)) for each in trials)
    samples = {s.index: s for s in drawn_here if s is not None}
    made_of = {s.generation: s.parents for s in samples.values()}
    state = _State(_first(request, numbers, trials, sign))
    for generation in sorted(made_of.keys() - {0}):
        parents = [samples[index] for index in made_of[generation] if index in samples]
        state = _next(request, numbers, state, generation, parents)
    used = {index for indices in made_of.values() for index in indices}
    oldest = max(state.generation - 1, state.since)
    fresh = [
        s
        for s in samples.values()
        if s.loss is not None and s.generation >= oldest and s.index not in used
    ]
    size = state.optimizer.population_size
    if len(fresh) < size:
        return state
    return _next(request, numbers, state, state.generation + 1, fresh[:size])


def _next(
    request: Request,
    numbers: Numbers,
    state: _State,
    generation: int,
    parents: Sequence[_Sample],
) -> _State:
    """The next generation. One whose parents somebody has deleted is like the one before."""
    optimizer = state.optimizer
    solutions = [(np.array(s.place), s.loss) for s in parents if s.loss is not None]
    if len(solutions) == optimizer.population_size:
        optimizer.tell(solutions)
    indices = [s.index for s in parents]
    if not _stuck(optimizer):
        return _State(optimizer, generation, state.since, indices)
    rng = np.random.RandomState(request.number("cmaes", "restart", generation))
    anew = _optimizer(numbers, 2 * optimizer.population_size, rng.uniform(size=len(numbers)))
    return _State(anew, generation, generation, indices)


def _stuck(optimizer: CMAwM) -> bool:
    """Whether its distribution has become a point, or nothing that numbers can say."""
    try:
        return bool(optimizer.should_stop()) or not np.isfinite(optimizer.mean).all()
    except np.linalg.LinAlgError:
        return True


def _first(request: Request, numbers: Numbers, trials: Sequence[Told], sign: float) -> CMAwM:
    """Where the search begins: where other sweeps did best, or at the first initial point."""
    size = request.algorithm.population
    warm = [
        (
            np.array([each.share(t.params[name]) for name, each in numbers.items()]),
            sign * t.values[0],
        )
        for t in trials
        if t.index is None and t.values
    ]
    if warm:
        best = sorted(warm, key=lambda known: known[1])[: math.ceil(_LEARNT_FROM * len(warm))]
        mean, sigma, covariance = get_warm_start_mgd(best, gamma=1.0)
        return _optimizer(numbers, size, mean, sigma, covariance)
    given = request.initial_points[0] if request.initial_points else {}
    known = {name: numbers[name].typed(given[name]) for name in numbers if name in given}
    mean = [0.5 if (v := known.get(name)) is None else numbers[name].share(v) for name in numbers]
    return _optimizer(numbers, size, np.array(mean))


def _optimizer(
    numbers: Numbers,
    population: int | None,
    mean: Vector,
    sigma: float = _SIGMA,
    covariance: Vector | None = None,
) -> CMAwM:
    """CMA-ES over the unit cube, where values of a ladder are the middles of equal pieces."""
    steps = np.array([_step(each) for each in numbers.values()])
    bounds = np.stack([steps / 2, 1 - steps / 2], axis=1)
    return CMAwM(
        mean=np.clip(mean, bounds[:, 0], bounds[:, 1]),
        sigma=sigma,
        bounds=bounds,
        steps=steps,
        n_max_resampling=10 * len(numbers),
        population_size=population,
        cov=covariance,
    )


def _step(values: Continuum | Ladder) -> float:
    """Distance of two values in the unit cube; 0 where they are as good as a continuum."""
    if isinstance(values, Continuum) or values.log or values.size > _MARGIN_UP_TO:
        return 0.0
    return 1 / values.size


def _sample(trial: Told, sign: float, dimensions: int) -> _Sample | None:
    """A trial that was drawn from a distribution of this sweep; None where it has been edited."""
    if trial.index is None:
        return None
    try:
        own = trial.attrs
        place = [float(x) for x in own["place"]]
        generation, parents = int(own["generation"]), [int(index) for index in own["parents"]]
    except (KeyError, TypeError, ValueError):
        return None
    if len(place) != dimensions or not all(map(math.isfinite, place)):
        return None
    loss = None if trial.values is None else sign * trial.values[0]
    return _Sample(trial.index, generation, place, parents, loss)
