"""`headway sweep`: run a Sweep on this machine, and look at what any sweep has found out."""

from __future__ import annotations

import typer

from headway_operator.local.sweep import run
from headway_operator.results.commands import compare, export, plot, report, show

app = typer.Typer(
    name="sweep",
    help="Search for good parameters.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)
for _command in (run, show, compare, export, plot, report):
    app.command()(_command)
