"""`headway convert`: manifests of other operators as TrainingJobs."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer
from rich.console import Console
from rich.text import Text

from headway.convert.documents import Document, convert, output
from headway.convert.fields import ConvertError

USAGE, CHECK = 2, 3


def run(
    file: Annotated[str, typer.Argument(metavar="FILE", help="Manifests; - for stdin.")],
    to: Annotated[
        Path | None, typer.Option("-o", "--output", help="File to write; by default stdout.")
    ] = None,
    pool: Annotated[
        list[str] | None,
        typer.Option(help="GPU pool for jobs with GPUs; may be repeated, by preference."),
    ] = None,
) -> None:
    """Turn MPIJobs, PyTorchJobs and TrainJobs into TrainingJobs.

    Documents of other kinds pass through unchanged. What can't be taken over, or needs a decision,
    is a line on stderr and a comment in the result.

    The exit status is 0 if there is nothing to decide, **3** if there is, 2 if FILE can't be
    converted.

    Examples:
        headway convert mpijob.yaml

        headway convert jobs.yaml --pool a100 -o converted.yaml

        kubectl get pytorchjob mnist -o yaml | headway convert -
    """
    console = Console(stderr=True, highlight=False, soft_wrap=True)
    try:
        documents = convert(_text(file), tuple(pool or ()))
        result = output(documents)
        if to is None:
            sys.stdout.write(result)
        else:
            to.write_text(result)
    except (ConvertError, OSError) as error:
        console.print(Text(f"headway: {error}", style="red"))
        raise typer.Exit(USAGE) from None
    for line in told(documents):
        console.print(line)
    if any(note.check for document in documents for note in document.notes):
        raise typer.Exit(CHECK)


def told(documents: Iterable[Document]) -> Iterable[Text]:
    """The notes as lines: those that need a decision first."""
    for document in documents:
        for note in sorted(document.notes, key=lambda note: not note.check):
            label = Text("check ", style="yellow") if note.check else Text("note  ", style="dim")
            where = f" {note.where}:" if note.where else ""
            yield label + Text(f"{document.name}{where} {note.text}")


def _text(file: str) -> str:
    if file == "-":
        return sys.stdin.read()
    try:
        return Path(file).read_text()
    except UnicodeDecodeError:
        raise ConvertError(f"{file} is not a text") from None
