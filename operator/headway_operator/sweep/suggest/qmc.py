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
    space = request.space
    sequence = qmc.Sobol(len(space.dimensions), scramble=True, rng=request.number("qmc"))
    before = request.index - len(request.initial_points)  # the sequence begins after those
    if before:
        sequence.fast_forward(before)
    shares = dict(zip(space.dimensions, sequence.random(1)[0], strict=True))

    def pick(name: str, values: Dimension) -> Scalar:
        return values.at(float(shares[name]))

    return Suggestion(space.assembled(pick))
