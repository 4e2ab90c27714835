"""One page about a sweep that needs nothing else, for a browser or for paper."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import jinja2
import plotly.offline
import yaml

from headway_operator.results import words
from headway_operator.results.again import manifest
from headway_operator.results.errors import NotDrawnError
from headway_operator.results.findings import Findings, Result
from headway_operator.results.kinds import Kind, Plot
from headway_operator.results.plots import MOST_CURVES, MOST_PARAMS, interactive
from headway_operator.sweep.space import text
from headway_operator.sweep.trial import Scalar
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.times import timestamp

_CAPTIONS: Final = {
    Kind.history: "Each trial's value in the order of their numbers, and the best so far.",
    Kind.importances: "How much of the value each parameter decides (PED-ANOVA). "
    "With few trials a hint at most.",
    Kind.parallel: "A line for each trial through its parameters; the colour is its value.",
    Kind.slice: "Each parameter by itself against the value.",
    Kind.contour: f"Pairs of parameters, the {MOST_PARAMS} most important at most. Darker is "
    "better.",
    Kind.pareto: "No trial is better than one of the front in all objectives.",
    Kind.intermediate: f"What trials reported on the way, the best {MOST_CURVES} at most.",
    Kind.edf: "Share of the trials that are at or below a value.",
    Kind.timeline: "When trials ran, waiting in a queue included.",
}
_TITLES: Final = {
    Kind.history: "History",
    Kind.importances: "What matters",
    Kind.parallel: "Parallel coordinates",
    Kind.slice: "Slices",
    Kind.contour: "Contours",
    Kind.pareto: "Pareto front",
    Kind.intermediate: "On the way",
    Kind.edf: "Distribution of values",
    Kind.timeline: "Timeline",
}
_HEIGHT, _COLUMN = 420, 180
"""Of a plot, and least width of one of several beside each other, in pixels."""
_OF_EACH: Final = (Kind.history, Kind.importances, Kind.slice, Kind.contour)
"""Plots that each objective has its own of."""
_OF_ALL: Final = (Kind.intermediate, Kind.parallel, Kind.edf, Kind.timeline)


@dataclass(frozen=True)
class Figure:
    """A plot on the page.

    Attributes:
        title: above it.
        caption: what it shows.
        content: data and layout, for plotly.
    """

    title: str
    caption: str
    content: dict[str, Any]


def page(found: Findings) -> str:
    """The report as HTML; what can't be drawn of this sweep is left out of it."""
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("headway_operator.results", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    best = found.best or next(iter(found.front), None)
    return environment.get_template("report.html.j2").render(
        found=found,
        words=words,
        text=text,
        best=best,
        manifest=_again(found, best),
        figures=list(_figures(found)),
        trials=[_row(found, each) for each in found.results],
        front={each.index for each in found.front},
        unhappy=[each for each in found.results if each.state == "Failed"],
        taken=timestamp(found.now),
        plotly=plotly.offline.get_plotlyjs(),
    )


def _again(found: Findings, best: Result | None) -> str:
    """The best trial's TrainingJob as YAML; empty without one."""
    if best is None:
        return ""
    try:
        return str(yaml.safe_dump(manifest(found, best), sort_keys=False, allow_unicode=True))
    except Stuck:
        return ""


def _figures(found: Findings) -> Iterator[Figure]:
    several = len(found.spec.objectives) > 1
    wanted = [Plot(Kind.pareto)] if several else []
    for place in range(len(found.spec.objectives)):
        wanted += [Plot(kind, place) for kind in _OF_EACH]
    wanted += [Plot(kind) for kind in _OF_ALL]
    for plot in wanted:
        try:
            figure = interactive(found, plot)
        except NotDrawnError:
            continue
        if plot.kind is Kind.importances:
            figure.update_yaxes(title=None)  # it would stand on long names
        title = _TITLES[plot.kind]
        if several and plot.kind is not Kind.pareto and plot.kind is not Kind.timeline:
            title += f": {found.spec.objectives[plot.objective].metric}"
        yield Figure(title, _CAPTIONS[plot.kind], _content(figure))


def _content(figure: Any) -> dict[str, Any]:
    """A figure as the page wants it, which has the heading and the colours."""
    content: dict[str, Any] = json.loads(figure.to_json())
    layout = content["layout"]
    rows = len({tuple(axis["domain"]) for axis in _axes(layout, "y") if "domain" in axis})
    columns = len({tuple(axis["domain"]) for axis in _axes(layout, "x") if "domain" in axis})
    layout["height"] = max(_HEIGHT, _HEIGHT * rows // 2)
    layout["width"] = _COLUMN * columns if columns > 1 else None
    layout["legend"] = {"orientation": "h", "x": 0, "y": 1, "yanchor": "bottom"}
    return {"data": content["data"], "layout": {**layout, "title": None, "template": None}}


def _axes(layout: dict[str, Any], letter: str) -> Iterator[dict[str, Any]]:
    return (axis for name, axis in layout.items() if name.startswith(f"{letter}axis"))


@dataclass(frozen=True)
class Cell:
    """A cell of the table of trials.

    Attributes:
        said: its text.
        key: what it is sorted by, as JavaScript writes numbers.
    """

    said: str
    key: str


def _row(found: Findings, result: Result) -> tuple[Result, Sequence[Cell]]:
    values = result.values or (None,) * len(found.spec.objectives)
    params = [result.params.get(name) for name in found.varying]
    return result, [
        Cell(str(result.index), _key(result.index)),
        Cell(result.state, result.state),
        Cell(str(result.trial.step or ""), _key(result.trial.step)),
        *(Cell(words.number(value), _key(value)) for value in values),
        *(Cell("" if value is None else words.short(value), _key(value)) for value in params),
    ]


def _key(value: Scalar | None) -> str:
    if value is None:
        return ""
    said = text(value)
    return said.replace("inf", "Infinity") if isinstance(value, float) else said
