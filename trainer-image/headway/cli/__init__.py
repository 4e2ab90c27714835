"""The `headway` command.

Its commands are entry points of the group `headway.commands`: each part of Headway brings its
own, and this package imports none of them.
"""

from __future__ import annotations

from importlib.metadata import entry_points, version

import typer

_NEEDS = "this command needs more of Headway: pip install 'headway[local]'"


def _version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"headway {version('headway')}")
        raise typer.Exit


def application() -> typer.Typer:
    """The command line with all commands that are installed."""
    app = typer.Typer(
        name="headway",
        help="Distributed training that never loses its place.",
        no_args_is_help=True,
        add_completion=False,
        rich_markup_mode="markdown",
    )

    @app.callback()
    def main(
        _: bool = typer.Option(
            False, "--version", callback=_version, is_eager=True, help="Show the version."
        ),
    ) -> None:
        pass

    for entry in entry_points(group="headway.commands"):
        try:
            command = entry.load()
        except ImportError as error:
            command = _missing(error)
        if isinstance(command, typer.Typer):
            app.add_typer(command, name=entry.name)
        else:
            app.command(entry.name)(command)
    return app


def _missing(error: ImportError) -> object:
    reason = str(error)

    def command() -> None:
        """Not installed here."""
        typer.echo(f"{_NEEDS} ({reason})", err=True)
        raise typer.Exit(2)

    return command


def main() -> None:
    """Entry point of `headway`."""
    application()()
