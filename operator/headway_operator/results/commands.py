"""`headway sweep show|compare|export|plot|report`: what a person types, and what is said back.

What draws and exports is loaded by the command that needs it: `headway --help` waits for none.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, NoReturn

import typer
import yaml
from rich.console import Console

from headway_operator.results import compare as comparing
from headway_operator.results.again import manifest
from headway_operator.results.document import document
from headway_operator.results.document import table as csv_of
from headway_operator.results.errors import ResultsError
from headway_operator.results.findings import Findings, Result
from headway_operator.results.kinds import Importance, Kind, Plot
from headway_operator.results.source import Source
from headway_operator.results.table import Sort, console_for, ordered, shown
from headway_operator.trainingjob.stuck import Stuck

USAGE: Final = 2
_LIBRARIES: Final = "this needs more of Headway: pip install 'headway[results]'"

Name = Annotated[str, typer.Argument(help="Name of the sweep.", show_default=False)]
File = Annotated[
    str | None,
    typer.Option(
        "-f",
        "--file",
        help="Read objects from a file (- for stdin), as written by "
        "`kubectl get sweeps,trainingjobs,sweeprecords -o yaml`.",
        show_default=False,
    ),
]
State = Annotated[
    Path | None,
    typer.Option(
        help="Read the state folder of `headway sweep run`. "
        "By default .headway/NAME, where that is there.",
        show_default=False,
    ),
]
Namespace = Annotated[
    str | None,
    typer.Option(
        "-n",
        "--namespace",
        help="Namespace in the cluster; by default that of the context.",
        show_default=False,
    ),
]
Context = Annotated[str | None, typer.Option(help="Context of the kubeconfig.", show_default=False)]
OfObjective = Annotated[
    str | None,
    typer.Option(
        "--objective", help="Metric or place (from 0) of the objective.", show_default="the first"
    ),
]


class Format(StrEnum):
    """Forms of `show`."""

    table = "table"
    wide = "wide"
    json = "json"
    yaml = "yaml"
    job = "job"


class Target(StrEnum):
    """Where `export` takes results."""

    csv = "csv"
    json = "json"
    optuna = "optuna"
    mlflow = "mlflow"


def show(
    name: Name,
    output: Annotated[
        Format,
        typer.Option("-o", "--output", help="job: the best trial as a TrainingJob to run again."),
    ] = Format.table,
    sort: Annotated[Sort, typer.Option(help="Order of the trials.")] = Sort.best,
    limit: Annotated[int, typer.Option(min=0, help="Trials in the table; 0 for all.")] = 20,
    file: File = None,
    state: State = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Show how far a sweep is, its best trial, and its trials.

    Examples:
        headway sweep show digits

        headway sweep show digits -o wide --sort trial --limit 0

        headway sweep show digits -o job | kubectl create -f -

        kubectl get sweeps,trainingjobs,sweeprecords -o yaml | headway sweep show digits -f -
    """
    with _sentences():
        (found,), where = Source(file, state, namespace, context).read(name)
        wide = output is Format.wide
        console = console_for(wide=wide)
        if output is Format.json:
            _print(json.dumps(document(found), indent=2, ensure_ascii=False))
        elif output is Format.yaml:
            _print(_yaml(document(found)))
        elif output is Format.job:
            _print(_yaml(manifest(found, _chosen(found))))
        else:
            trials, rest = ordered(found, sort, limit)
            console.print(shown(found, trials, rest, console.width, wide=wide))
            _say(f"read from {where}")


def compare(
    names: Annotated[list[str], typer.Argument(help="Names of sweeps.", show_default=False)],
    trials: Annotated[
        str | None,
        typer.Option(help="Trials of one sweep instead, such as 3,7,9.", show_default=False),
    ] = None,
    objective: OfObjective = None,
    target: Annotated[
        float | None,
        typer.Option(
            help="Value to reach; by default the best that all of them have reached.",
            show_default=False,
        ),
    ] = None,
    out: Annotated[
        Path | None,
        typer.Option(help="Also draw their histories into this .html.", show_default=False),
    ] = None,
    file: File = None,
    state: State = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Compare sweeps, or trials of one.

    Trials and steps to the target are what the trials up to the first one that reached it have
    taken, one after the other; they may have run side by side.

    Examples:
        headway sweep compare digits digits-asha

        headway sweep compare digits digits-asha --target 0.97 --out history.html

        headway sweep compare digits --trials 3,7,9
    """
    with _sentences():
        every, _ = Source(file, state, namespace, context).read(*names)
        console = console_for()
        if trials is not None:
            if len(every) != 1:
                raise ResultsError("--trials are those of one sweep: name only that")
            console.print(comparing.trials_table(every[0], _numbered(every[0], trials)))
            return
        if len(every) == 1:
            raise ResultsError("name two sweeps or more, or trials of this one by --trials")
        common = comparing.same_objective(every, objective)
        goal = comparing.common_target(every, common) if target is None else target
        console.print(comparing.sweeps_table(every, common, goal))
        if out is not None:
            places = [comparing.place_in(found, common.metric) for found in every]
            plots = _plots()
            plots.compared(every, places).write_html(out, include_plotlyjs=True)
            _say(f"wrote {out}")


def export(
    name: Name,
    to: Annotated[Target, typer.Option(help="What to make of it.", show_default=False)],
    out: Annotated[
        str | None,
        typer.Option(
            help="File for csv and json (default: stdout); URL of Optuna's storage; "
            "tracking URI of MLflow.",
            show_default=False,
        ),
    ] = None,
    file: File = None,
    state: State = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Take a sweep's trials to CSV, JSON, Optuna or MLflow.

    Exporting again doubles nothing: files are written anew; in Optuna and MLflow trials that had
    ended stay as they are, the others are brought up to date, and new ones are added.

    Examples:
        headway sweep export digits --to csv --out digits.csv

        headway sweep export digits --to optuna --out sqlite:///sweeps.db

        optuna-dashboard sqlite:///sweeps.db

        headway sweep export digits --to mlflow --out http://mlflow.example.com
    """
    with _sentences():
        (found,), _ = Source(file, state, namespace, context).read(name)
        if to in {Target.csv, Target.json}:
            text = csv_of(found) if to is Target.csv else json.dumps(document(found, points=True))
            _write(text, out)
            return
        if out is None:
            example = "sqlite:///sweeps.db" if to is Target.optuna else "http://mlflow.example.com"
            raise ResultsError(f"--to {to} needs --out, such as --out {example}")
        _say(f"exporting {len(found.results)} trials")
        count = _exporter(to)(found, out)
        rest = len(found.results) - count
        _say(f"wrote {count} trials to {out}" + (f"; {rest} were there" if rest > 0 else ""))


def plot(
    name: Name,
    kind: Annotated[Kind, typer.Argument(help="What to draw.", show_default=False)],
    out: Annotated[
        Path | None,
        typer.Option(help="File: .html, .png, .svg or .pdf.", show_default="NAME-KIND.html"),
    ] = None,
    params: Annotated[
        str | None,
        typer.Option(help="Only these parameters, such as lr,momentum.", show_default=False),
    ] = None,
    objective: OfObjective = None,
    importance: Annotated[
        Importance, typer.Option(help="How importances are computed.")
    ] = Importance.pedanova,
    file: File = None,
    state: State = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Draw a sweep: a page to look into, or a picture.

    Trials that a rule has stopped, or that wait at a rung, count with what they have reported.

    Examples:
        headway sweep plot digits history

        headway sweep plot digits importances --out importances.png

        headway sweep plot digits contour --params lr,momentum --out contour.svg
    """
    with _sentences():
        plots = _plots()
        (found,), _ = Source(file, state, namespace, context).read(name)
        place = comparing.place_in(found, objective) if objective else 0
        named = tuple(part for part in (params or "").split(",") if part)
        written = out or Path(f"{name}-{kind}.html")
        with _needed():
            plots.write(found, Plot(kind, place, named, importance), written)
        _say(f"wrote {written}")


def report(
    name: Name,
    out: Annotated[Path | None, typer.Option(help="File.", show_default="NAME.html")] = None,
    file: File = None,
    state: State = None,
    namespace: Namespace = None,
    context: Context = None,
) -> None:
    """Write one page with everything: what was searched, the best, plots, all trials.

    The page needs nothing else: it can be mailed, kept, and read without a network.

    Examples:
        headway sweep report digits

        headway sweep report digits --out results/digits.html
    """
    with _sentences():
        with _needed():
            from headway_operator.results.report import page  # noqa: PLC0415
        (found,), _ = Source(file, state, namespace, context).read(name)
        written = out or Path(f"{name}.html")
        with _needed():
            written.write_text(page(found), encoding="utf-8")
        _say(f"wrote {written}")


# --- what all of them need ------------------------------------------------------------------------


@contextmanager
def _sentences() -> Iterator[None]:
    """What the user can mend is told in a sentence."""
    try:
        yield
    except ResultsError as error:
        _fail(str(error))
    except Stuck as stuck:
        _fail(stuck.message)
    except OSError as error:
        _fail(f"can't write {error.filename}: {error.strerror}")


@contextmanager
def _needed() -> Iterator[None]:
    """What is not installed is told in a sentence."""
    try:
        yield
    except ImportError as error:
        _fail(f"{_LIBRARIES} ({error.name or error} is missing)")


def _fail(text: str) -> NoReturn:
    console = Console(stderr=True, highlight=False, markup=False, emoji=False)
    console.print(f"headway: {text}", style="red", soft_wrap=True)
    raise typer.Exit(USAGE)


def _say(text: str) -> None:
    Console(stderr=True, highlight=False, markup=False).print(text, style="dim", soft_wrap=True)


def _print(text: str) -> None:
    sys.stdout.write(text.rstrip("\n") + "\n")


def _yaml(content: Any) -> str:
    return yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=100)


def _write(text: str, out: str | None) -> None:
    if out in {None, "-"}:
        _print(text)
    else:
        assert out is not None
        Path(out).write_text(text, encoding="utf-8")
        _say(f"wrote {out}")


def _chosen(found: Findings) -> Result:
    """The trial to run again: the best, or the first of the Pareto front."""
    best = found.best or next(iter(found.front), None)
    if best is None:
        raise ResultsError(f"no trial of {found.sweep.name} has a value yet: there is no best one")
    return best


def _numbered(found: Findings, text: str) -> list[Result]:
    try:
        numbers = list(dict.fromkeys(int(part) for part in text.split(",")))
    except ValueError:
        raise ResultsError(f"--trials {text}: write numbers, such as 3,7,9") from None
    for number in numbers:
        if number not in found.by_index:
            raise ResultsError(f"{found.sweep.name} has no trial {number}")
    return [found.by_index[number] for number in numbers]


def _plots() -> Any:
    """The module that draws, with its libraries."""
    with _needed():
        from headway_operator.results import plots  # noqa: PLC0415
    return plots


def _exporter(to: Target) -> Callable[[Findings, str], int]:
    with _needed():
        if to is Target.mlflow:
            from headway_operator.results.to_mlflow import to_mlflow  # noqa: PLC0415

            return to_mlflow
        from headway_operator.results.to_optuna import to_optuna  # noqa: PLC0415

        return to_optuna
