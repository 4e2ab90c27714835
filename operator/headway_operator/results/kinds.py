"""What can be drawn; without the libraries that draw, which `--help` need not wait for."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Kind(StrEnum):
    """Plots."""

    history = "history"
    importances = "importances"
    parallel = "parallel"
    slice = "slice"
    contour = "contour"
    pareto = "pareto"
    intermediate = "intermediate"
    edf = "edf"
    timeline = "timeline"
    rank = "rank"


class Importance(StrEnum):
    """How importances are computed."""

    pedanova = "pedanova"
    fanova = "fanova"


@dataclass(frozen=True)
class Plot:
    """What is to be drawn.

    Attributes:
        kind: of plot.
        objective: place of the objective; of some plots all count.
        params: parameters to show; empty for those that fit.
        importance: how importances are computed.
    """

    kind: Kind
    objective: int = 0
    params: tuple[str, ...] = ()
    importance: Importance = Importance.pedanova
