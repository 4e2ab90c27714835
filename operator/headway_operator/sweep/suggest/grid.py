"""Grid search: every configuration once, the first parameter changing slowest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from headway_operator.sweep.space import Space, same
from headway_operator.sweep.suggest.request import Request, SpaceExhausted, Suggestion
from headway_operator.sweep.trial import Scalar


def suggest(request: Request) -> Suggestion:
    """The first configuration that has not been tried, here or in a sweep that is learnt from.

    A failed trial has been tried; of other sweeps only trials with values count.

    Raises:
        SpaceExhausted: all have been tried.
    """
    tried = {_key(trial.params) for trial in request.trials}
    tried |= {_key(trial.params) for trial in request.warm if trial.ended and trial.values}
    for params in points(request.space):
        if _key(params) not in tried:
            return Suggestion(params)
    raise SpaceExhausted


def points(space: Space) -> Iterator[dict[str, Scalar]]:
    """All configurations, made as they are asked for; each float of the space has a step."""
    yield from _from(space, tuple(space.dimensions), {})


def _from(
    space: Space, names: tuple[str, ...], params: dict[str, Scalar]
) -> Iterator[dict[str, Scalar]]:
    """All configurations that begin with what is chosen already."""
    if not names:
        yield params
        return
    first, rest = names[0], names[1:]
    if not space.active(first, params):
        yield from _from(space, rest, params)
        return
    values = space.dimensions[first]
    for place in range(values.size or 0):
        yield from _from(space, rest, {**params, first: values.value(place)})


def _key(params: Mapping[str, Scalar]) -> frozenset[tuple[str, tuple[bool, Scalar]]]:
    return frozenset((name, same(value)) for name, value in params.items())
