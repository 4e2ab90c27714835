"""Random search, and whatever else is drawn at random."""

from __future__ import annotations

import random
from collections.abc import Mapping

from headway_operator.sweep.space import Dimension
from headway_operator.sweep.suggest.request import Request, Suggestion
from headway_operator.sweep.trial import Scalar


def suggest(request: Request) -> Suggestion:
    """Draw a configuration."""
    return Suggestion(completed(request, {}))


def completed(request: Request, given: Mapping[str, Scalar]) -> dict[str, Scalar]:
    """A configuration with some values given and the others drawn for the trial of this index.

    A given value of a parameter that turns out to be inactive is left out.
    """
    rng = request.random("uniform", request.index)

    def pick(name: str, values: Dimension) -> Scalar:
        known = values.typed(given[name]) if name in given else None
        return drawn(values, rng) if known is None else known

    return request.space.assembled(pick)


def drawn(values: Dimension, rng: random.Random) -> Scalar:
    """A value, each as likely as any other; with `log`, each order of magnitude."""
    return values.at(rng.random())
