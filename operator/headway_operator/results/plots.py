"""Plots of a sweep by Optuna's visualization: with plotly for a browser, with matplotlib for paper.

What can't be drawn is a sentence: Optuna draws an empty picture, or fails with an assertion.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import optuna

from headway_operator.results.errors import NotDrawnError
from headway_operator.results.findings import Findings, Result
from headway_operator.results.kinds import Importance, Kind, Plot
from headway_operator.results.study import LIVES, drawable, study_of
from headway_operator.sweep.space import same
from headway_operator.sweep.trial import Scalar

MOST_PARAMS: Final = 4
"""Parameters of plots with a picture for each pair, unless others are named."""
MOST_CURVES: Final = 100
"""Trials whose course is drawn: the best of them. More can't be told apart."""
_LEGEND: Final = 12
"""Curves that a legend is of use for."""
_LEAST: Final = {Kind.importances: 2, Kind.contour: 2, Kind.rank: 2}
"""Parameters without which there is nothing to draw."""


def interactive(found: Findings, plot: Plot) -> Any:
    """A figure of plotly's.

    Raises:
        NotDrawnError: there is nothing to draw.
    """
    from optuna import visualization  # noqa: PLC0415

    with _quiet(), _told(plot):
        return _drawn(found, plot, visualization)


def write(found: Findings, plot: Plot, out: Path) -> None:
    """Write a page that needs nothing else, or a picture: what the file's suffix says.

    Raises:
        NotDrawnError: there is nothing to draw.
    """
    if out.suffix == ".html":
        interactive(found, plot).write_html(out, include_plotlyjs=True)
    elif out.suffix in {".png", ".svg", ".pdf"}:
        _write_picture(found, plot, out)
    else:
        raise NotDrawnError(f"{out}: choose a name that ends in .html, .png, .svg or .pdf")


def _write_picture(found: Findings, plot: Plot, out: Path) -> None:
    import matplotlib as mpl  # noqa: PLC0415

    mpl.use("agg")
    from matplotlib import pyplot as plt  # noqa: PLC0415
    from optuna.visualization import matplotlib as visualization  # noqa: PLC0415

    with _quiet(), _told(plot), plt.rc_context():
        try:
            _drawn(found, plot, visualization)
            figure = plt.gcf()
            place = figure.axes[0].get_subplotspec()
            rows, columns = place.get_gridspec().get_geometry() if place else (1, 1)
            figure.set_size_inches(max(8.0, 3.2 * columns), max(5.0, 2.8 * rows))
            figure.savefig(out, dpi=144, bbox_inches="tight")
        finally:
            plt.close("all")


def importances(found: Findings, objective: int = 0) -> dict[str, float]:
    """How much of the value each parameter decides by PED-ANOVA, the most important first.

    Returns:
        Shares that add up to 1; nothing where there is too little to compare.

    Source: Watanabe et al., PED-ANOVA, IJCAI 2023.
    """
    plot = Plot(Kind.importances, objective)
    try:
        names = list(_params(found, plot, _valued(found, plot)))
    except NotDrawnError:
        return {}
    with _quiet():
        return optuna.importance.get_param_importances(study_of(found, objective), params=names)


def most_important(found: Findings, names: Sequence[str], objective: int = 0) -> tuple[str, ...]:
    """The most important of some parameters, as many as pictures of pairs have room for."""
    if len(names) <= MOST_PARAMS:
        return tuple(names)
    shares = importances(found, objective)
    return tuple(sorted(names, key=lambda name: -shares.get(name, 0.0))[:MOST_PARAMS])


def curves(found: Findings, objective: int = 0) -> Sequence[Result]:
    """The trials whose course is drawn: the best ones, if there are too many."""
    metric = found.spec.objectives[objective].metric
    told = [
        each
        for each in found.results
        if each.state != "Failed" and any(drawable(p.value) for p in each.course(metric))
    ]
    if len(told) <= MOST_CURVES:
        return told
    places = {each.index: place for place, each in enumerate(found.ranked)}
    best = sorted(told, key=lambda each: places.get(each.index, len(places)))[:MOST_CURVES]
    return sorted(best, key=lambda each: each.index)


def compared(found: Sequence[Findings], objectives: Sequence[int]) -> Any:
    """The history of several sweeps in a figure of plotly's.

    Args:
        found: the sweeps.
        objectives: place of the objective in each.
    """
    from optuna import visualization  # noqa: PLC0415

    with _quiet():
        studies = [study_of(each, place) for each, place in zip(found, objectives, strict=True)]
        metric = found[0].spec.objectives[objectives[0]].metric
        return visualization.plot_optimization_history(studies, target_name=metric)


# --- drawing --------------------------------------------------------------------------------------


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Optuna's and matplotlib's remarks: what matters of them has been checked before."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _told(plot: Plot) -> Iterator[None]:
    """What a library stumbles over is told, and costs a report one plot: values of 1e300, say."""
    try:
        yield
    except (ValueError, ArithmeticError, AssertionError) as error:
        raise NotDrawnError(f"{plot.kind} can't be drawn of these values: {error}") from error


_BY_VALUE: Final = {Kind.history: "plot_optimization_history", Kind.edf: "plot_edf"}
_BY_PARAMS: Final = {
    Kind.importances: "plot_param_importances",
    Kind.parallel: "plot_parallel_coordinate",
    Kind.slice: "plot_slice",
    Kind.contour: "plot_contour",
    Kind.rank: "plot_rank",
}


def _drawn(found: Findings, plot: Plot, library: Any) -> Any:
    if plot.kind is Kind.intermediate:
        return _intermediate(found, plot, library)
    if plot.kind is Kind.timeline:
        return _timeline(found, library)
    trials = _valued(found, plot)
    if plot.kind is Kind.pareto:
        return _pareto(found, library)
    study, metric = study_of(found, plot.objective), _metric(found, plot)
    if plot.kind in _BY_VALUE:
        return getattr(library, _BY_VALUE[plot.kind])(study, target_name=metric)
    names = list(_params(found, plot, trials))
    more = {"evaluator": _evaluator(plot)} if plot.kind is Kind.importances else {}
    draw = getattr(library, _BY_PARAMS[plot.kind])
    return draw(study, params=names, target_name=metric, **more)


def _evaluator(plot: Plot) -> optuna.importance.BaseImportanceEvaluator:
    if plot.importance is Importance.pedanova:
        return optuna.importance.PedAnovaImportanceEvaluator()
    try:
        return optuna.importance.FanovaImportanceEvaluator(seed=0)
    except ImportError:
        raise NotDrawnError("fANOVA needs scikit-learn: pip install scikit-learn") from None


def _pareto(found: Findings, library: Any) -> Any:
    count = len(found.spec.objectives)
    if count not in {2, 3}:
        has = "one objective and a best trial" if count == 1 else f"{count} objectives"
        raise NotDrawnError(f"a Pareto front has two or three axes, and this sweep has {has}")
    return library.plot_pareto_front(study_of(found))


def _intermediate(found: Findings, plot: Plot, library: Any) -> Any:
    metric, shown = _metric(found, plot), curves(found, plot.objective)
    if not shown:
        raise NotDrawnError(f"no trial has reported {metric} yet")
    # The others keep their places: they are as good as deleted.
    figure = library.plot_intermediate_values(
        study_of(replace(found, results=shown), plot.objective)
    )
    if hasattr(figure, "update_layout"):
        return figure.update_layout(yaxis_title=metric)
    figure.set_ylabel(metric)
    if len(shown) > _LEGEND and figure.get_legend():
        figure.get_legend().remove()
    return figure


def _timeline(found: Findings, library: Any) -> Any:
    unknown = sum(each.started is None for each in found.results)
    unknown += found.situation.created - len(found.results)
    if unknown or not found.results:
        raise NotDrawnError(
            f"of {unknown} trials it is not known any more when they ran: their TrainingJobs said "
            "so, and are gone"
            if unknown
            else "there are no trials yet"
        )
    return library.plot_timeline(study_of(found, states=LIVES))


# --- what there is to draw ------------------------------------------------------------------------


def _metric(found: Findings, plot: Plot) -> str:
    return found.spec.objectives[plot.objective].metric


def _valued(found: Findings, plot: Plot) -> Sequence[Result]:
    """The trials that count with a number."""
    place = slice(None) if plot.kind is Kind.pareto else slice(plot.objective, plot.objective + 1)
    counting = [each for each in found.ranked if all(map(drawable, (each.values or ())[place]))]
    if not counting:
        raise NotDrawnError(f"no trial has a value of {_metric(found, plot)} yet that is a number")
    if plot.kind in _BY_PARAMS and len(counting) == 1:
        raise NotDrawnError("only one trial has a value yet: there is nothing to compare it with")
    if (
        plot.kind is Kind.importances
        and len({(each.values or ())[place] for each in counting}) == 1
    ):
        raise NotDrawnError(f"all trials have the same {_metric(found, plot)}: nothing decides it")
    return counting


def _params(found: Findings, plot: Plot, trials: Sequence[Result]) -> tuple[str, ...]:
    """The parameters to show: those that are named, or that have more than one value."""
    values: dict[str, set[tuple[bool, Scalar]]] = {}
    always = set(found.varying)
    for each in trials:
        always &= each.params.keys()
        for name, value in each.params.items():
            values.setdefault(name, set()).add(same(value))
    varied = [name for name in found.varying if len(values.get(name, ())) > 1]
    for name in plot.params:
        if name not in found.space.dimensions:
            known = ", ".join(found.space.dimensions)
            raise NotDrawnError(f"there is no parameter {name}: there are {known}")
        if name not in varied:
            raise NotDrawnError(f"parameter {name} has had no two values yet: leave it out")
    names = list(dict.fromkeys(plot.params)) or varied
    if plot.importance is Importance.fanova:
        names = [name for name in names if name in always]
    least = _LEAST.get(plot.kind, 1)
    if len(names) < least:
        some = "parameter" if least == 1 else "parameters"
        raise NotDrawnError(f"{plot.kind} needs {least} {some} with more than one value")
    if plot.kind in {Kind.contour, Kind.rank} and not plot.params:
        return most_important(found, names, plot.objective)
    return tuple(names)
