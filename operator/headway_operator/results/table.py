"""A sweep in the terminal: how far it is, the best, and a table of its trials."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from enum import StrEnum

from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from headway_operator.results.findings import Findings, Result
from headway_operator.results.words import aim, headline, number, pairs, plain, short, spent
from headway_operator.trainingjob.times import timestamp

STATES = {"Running": "green", "Paused": "yellow", "Stopped": "dim", "Failed": "red"}
_GAP = 2
_ENDLESS = 100_000
"""Columns of what is no terminal: nothing is cut off or wrapped for a program."""


class Sort(StrEnum):
    """Order of the trials."""

    best = "best"
    trial = "trial"
    step = "step"


@dataclass(frozen=True)
class Column:
    """A column of trials.

    Attributes:
        title: in the head.
        cells: one for each trial.
        right: whether it is of numbers.
        optional: whether it may be left out where there is no room.
    """

    title: str
    cells: Sequence[str]
    right: bool = False
    optional: bool = False

    @property
    def width(self) -> int:
        """Of its widest cell, with the gap after it."""
        return max(len(cell) for cell in (self.title, *self.cells)) + _GAP


def console_for(*, wide: bool = False) -> Console:
    """A console that is as wide as the terminal; or as it takes, if asked for or in a pipe."""
    console = Console(highlight=False, emoji=False, markup=False)
    if wide or not console.is_terminal:
        console.width = _ENDLESS
    return console


def ordered(found: Findings, sort: Sort, limit: int) -> tuple[Sequence[Result], int]:
    """Trials in an order, and how many are left out. 0 is no limit."""
    if sort is Sort.trial:
        every = list(found.results)
    elif sort is Sort.step:
        every = sorted(found.results, key=lambda each: (-each.trial.step, each.index))
    else:
        places = {each.index: place for place, each in enumerate(found.ranked)}
        every = sorted(
            found.results, key=lambda each: (places.get(each.index, len(places)), each.index)
        )
    shown = every[:limit] if limit else every
    return shown, len(every) - len(shown)


def shown(
    found: Findings, trials: Sequence[Result], rest: int, width: int, *, wide: bool
) -> RenderableType:
    """A sweep with some of its trials.

    Args:
        found: the sweep.
        trials: which are in the table.
        rest: how many are not.
        width: columns of the terminal.
        wide: whether everything is wanted that is known of a trial.
    """
    parts: list[RenderableType] = [*_head(found), *_best(found)]
    if not trials:
        return Group(*parts)
    columns, hidden = _fitting(list(_columns(found, trials, wide=wide)), width, wide=wide)
    parts += [Text(), _table(columns, trials)]
    if rest:
        parts.append(Text(f"and {rest} more: --limit 0 shows all", style="dim"))
    if hidden:
        said = f"no room for {', '.join(hidden)}: -o wide shows all"
        parts.append(Text(said, style="dim"))
    return Group(*parts)


def _head(found: Findings) -> Iterator[Text]:
    colour = {"Running": "green", "Succeeded": "bold green", "Failed": "bold red"}
    line = Text().append(f"{found.sweep.name}  ", style="bold")
    line.append(found.phase, style=colour.get(found.phase, "yellow"))
    yield line.append(f"  {headline(found)}")
    message = found.sweep.status.message
    if message and found.phase in {"Pending", "Failed", "Suspended"}:
        yield Text(f"  {plain(message)}")
    yield Text(f"  goal    {'; '.join(aim(each) for each in found.spec.objectives)}")
    yield Text(f"  spent   {spent(found)}")


def _best(found: Findings) -> Iterator[Text]:
    if found.best is not None:
        yield _line(found, "best  ", found.best)
        if found.best.checkpoint:
            yield Text(f"          {plain(found.best.checkpoint)}", style="dim")
    for place, each in enumerate(found.front[:_FRONT]):
        yield _line(found, "front " if place == 0 else "      ", each)
    if len(found.front) > _FRONT:
        more = len(found.front) - _FRONT
        yield Text(f"          and {more} more on the Pareto front (*)", style="dim")


_FRONT = 5
"""Trials of the Pareto front that are told before the table."""


def _line(found: Findings, word: str, result: Result) -> Text:
    values = "  ".join(
        f"{plain(objective.metric)} {number(value)}"
        for objective, value in zip(found.spec.objectives, result.values or (), strict=False)
    )
    varying = {name: result.params[name] for name in found.varying if name in result.params}
    text = Text(f"  {word}  trial {result.index}: ").append(values, style="bold")
    return text.append(f"  {pairs(varying)}")


def _columns(found: Findings, trials: Sequence[Result], *, wide: bool) -> Iterator[Column]:
    front = {each.index for each in found.front}
    mark = {False: "", True: "*"}
    yield Column("trial", [f"{mark[t.index in front]}{t.index}" for t in trials], right=True)
    yield Column("state", [t.state for t in trials])
    yield Column("step", [str(t.trial.step or "") for t in trials], right=True)
    for place, objective in enumerate(found.spec.objectives):
        cells = [number(t.values[place]) if t.values else "" for t in trials]
        yield Column(plain(objective.metric), cells, right=True)
    for name in found.space.dimensions if wide else found.varying:
        cells = [short(t.params[name]) if name in t.params else "" for t in trials]
        yield Column(name, cells, right=True, optional=True)
    if wide:
        yield Column("job", [t.name for t in trials])
        yield Column("ended", [timestamp(t.ended) if t.ended else "" for t in trials])
        yield Column("checkpoint", [plain(t.checkpoint) for t in trials])
        yield Column("why", [plain(t.why) for t in trials])


def _fitting(
    columns: list[Column], width: int, *, wide: bool
) -> tuple[list[Column], Sequence[str]]:
    """The columns that there is room for, and the titles of the others."""
    if wide:
        return columns, ()
    hidden: list[str] = []
    while sum(column.width for column in columns) > width + _GAP:
        last = next((column for column in reversed(columns) if column.optional), None)
        if last is None:
            break
        columns.remove(last)
        hidden.insert(0, last.title)
    return columns, hidden


def _table(columns: Sequence[Column], trials: Sequence[Result]) -> Table:
    table = Table(box=None, padding=(0, _GAP, 0, 0), header_style="dim", pad_edge=False)
    for column in columns:
        justify = "right" if column.right else "left"
        table.add_column(Text(column.title), justify=justify, no_wrap=True)  # type: ignore[arg-type]
    for place, trial in enumerate(trials):
        colour = STATES.get(trial.state, "")
        table.add_row(
            *(
                Text(column.cells[place], style=colour if column.title == "state" else "")
                for column in columns
            )
        )
    return table
