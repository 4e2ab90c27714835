"""The next configuration: a pure function of the space, the trials so far and the seed.

Nothing is remembered between two calls, so any process can answer at any time. The libraries that
search are loaded by the algorithm that needs them: the operator's own process never does.
"""

from __future__ import annotations

from importlib import import_module
from typing import Final, Protocol, cast

from headway_api.sweep import Algorithm
from headway_operator.sweep.suggest.request import (
    AlgorithmMissing,
    Request,
    SpaceExhausted,
    Suggestion,
)
from headway_operator.sweep.suggest.uniform import completed

__all__ = ["AlgorithmMissing", "Request", "SpaceExhausted", "Suggestion", "suggest"]

_MODULES: Final[dict[Algorithm, str]] = {
    "tpe": "tpe",
    "random": "uniform",
    "grid": "grid",
    "gp": "gp",
    "cmaes": "cmaes",
    "nsgaii": "nsgaii",
    "qmc": "qmc",
    "pbt": "pbt",
}


class _Searcher(Protocol):
    def suggest(self, request: Request, /) -> Suggestion: ...


def suggest(request: Request) -> Suggestion:
    """Choose a configuration; the same for the same request, in whichever process.

    The initial points come first, each at the index of its place; what they leave out is drawn at
    random.

    Raises:
        SpaceExhausted: a grid has been tried as a whole.
        AlgorithmMissing: a library that the algorithm needs is not installed.
    """
    if request.index < len(request.initial_points):
        return Suggestion(completed(request, request.initial_points[request.index]))
    module = import_module(f"{__name__}.{_MODULES[request.algorithm.name]}")
    return cast(_Searcher, module).suggest(request)
