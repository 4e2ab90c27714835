"""Sobol's sequence, scrambled: fills the space more evenly than random points do.

Source: Owen, Scrambling Sobol and Niederreiter-Xing points, J. Complexity 14 (1998).
"""

from __future__ import annotations

from scipy.stats import qmc

from headway_operator.sweep.space import Dimension
from headway_operator.sweep.suggest.request import Request, Suggestion
from headway_operator.sweep.trial import Scalar


def suggest(request: Request) -> Suggestion:
    """The point of the sequence that belongs to the index.

    Each parameter has a coordinate of its own, used or not, so a parameter that is inactive in some
    trials does not shift the others.
    """
    names = [name for name, each in request.space.dimensions.items() if each.size != 1]
    shares = dict(zip(names, _point(request, len(names)), strict=True))

    def pick(name: str, values: Dimension) -> Scalar:
        return values.at(shares[name]) if name in shares else values.value(0)

    return Suggestion(request.space.assembled(pick))


def _point(request: Request, dimensions: int) -> list[float]:
    """Coordinates from 0 to 1; the sequence begins with the first trial after the given ones."""
    if not dimensions:
        return []
    sequence = qmc.Sobol(dimensions, scramble=True, rng=request.number("qmc"))
    # Scipy draws the first 2**30 points; nobody tries as many.
    before = request.index - len(request.initial_points)
    if before:
        sequence.fast_forward(before)
    return [float(each) for each in sequence.random(1)[0]]
