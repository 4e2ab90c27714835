"""`headway checkpoint`: look at checkpoints, verify them, take them out and in."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer
from rich import filesize
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TransferSpeedColumn
from rich.table import Column, Table

from headway.checkpoint.errors import CheckpointError, CorruptCheckpoint
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.location import open_existing
from headway.checkpoint.manifest import Commit
from headway.checkpoint.reader import list_commits, load_commit, scan
from headway.checkpoint.stores import Store
from headway.checkpoint.verification import verify as verify_checkpoint
from headway.interop.formats import Format

FAILED, USAGE = 1, 2
_SHOWN = ("checkpoint", "saved", "ranks", "size", "metrics", "state")

app = typer.Typer(
    help="List, verify, export and import checkpoints.",
    no_args_is_help=True,
    rich_markup_mode="markdown",
)

Uri = Annotated[
    str,
    typer.Argument(
        metavar="URI",
        help="Folder of a job, or one checkpoint in its ckpt/: s3://…, gs://…, az://… or a path.",
    ),
]
Endpoint = Annotated[
    str | None,
    typer.Option(help="URL of an S3-compatible server.", envvar="AWS_ENDPOINT_URL"),
]
Region = Annotated[str | None, typer.Option(help="S3 region.", envvar="AWS_REGION")]


class Output(StrEnum):
    """Formats of the result."""

    text = "text"
    json = "json"


@app.command("list")
def list_(
    uri: Uri,
    endpoint: Endpoint = None,
    region: Region = None,
    output: Annotated[
        Output, typer.Option("-o", "--output", help="json: for scripts.")
    ] = Output.text,
) -> None:
    """Show the checkpoints of a job, newest first.

    Reads their records only; `verify` reads the data.

    Examples:
        headway checkpoint list s3://bucket/jobs/digits-8bcc7a00

        headway checkpoint list /shared/jobs/digits-8bcc7a00 -o json
    """
    with _explained():
        store, only = open_existing(uri, endpoint=endpoint, region=region)
        rows = [row for row in _rows(store) if only is None or row["checkpoint"] == _name(only)]
    if output is Output.json:
        typer.echo(json.dumps(rows, indent=2))
        return
    table = Table(*(Column(shown, no_wrap=shown != "state") for shown in _SHOWN), box=None)
    for row in rows:
        table.add_row(*(_shown(key, row[key]) for key in _SHOWN))
    Console().print(table if rows else f"There are no checkpoints under {store.uri}.")


@app.command()
def verify(
    uri: Uri,
    every: Annotated[bool, typer.Option("--all", help="Every checkpoint, not just one.")] = False,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Read every byte of a checkpoint and compare it with what was committed.

    Of a job's folder it takes the newest checkpoint. The exit status is 0 only if all is well.

    Examples:
        headway checkpoint verify s3://bucket/jobs/digits-8bcc7a00

        headway checkpoint verify --all /shared/jobs/digits-8bcc7a00
    """
    with _explained():
        store, only = open_existing(uri, endpoint=endpoint, region=region)
        found = [only] if only else list_commits(store)[: None if every else 1]
        if not found:
            raise CorruptCheckpoint(f"there is no checkpoint under {store.uri}")
        bad = sum([_report(store, each) for each in found])
    raise typer.Exit(FAILED if bad else 0)


@app.command()
def export(
    uri: Uri,
    target: Annotated[Path, typer.Argument(help="File to write; a directory for dcp.")],
    to: Annotated[Format, typer.Option("--to", help="Format.")] = Format.safetensors,
    only: Annotated[
        list[str] | None, typer.Option(help="Name of an object; may be repeated. By default all.")
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Write a checkpoint in another format, verified on the way.

    `safetensors` holds one model; `torch` is for `torch.load`, `dcp` for
    `torch.distributed.checkpoint.load`: a dict of state dicts by name.

    Examples:
        headway checkpoint export s3://bucket/jobs/digits-8bcc7a00 model.safetensors

        headway checkpoint export /shared/jobs/digits-8bcc7a00 state.pt --to torch

        headway checkpoint export s3://bucket/jobs/digits-8bcc7a00 out --to dcp --only model
    """
    with _explained():
        from headway.interop.exporting import export as write  # noqa: PLC0415 (loads torch)

        found = write(uri, target, to, only, endpoint=endpoint, region=region)
    typer.echo(f"{target} holds {found}")


@app.command("import")
def import_(
    source: Annotated[
        Path, typer.Argument(help="safetensors file, file of torch.save, or directory of DCP.")
    ],
    uri: Annotated[str, typer.Argument(metavar="URI", help="Folder of the job to write to.")],
    step: Annotated[int, typer.Option(min=0, help="Training steps that it stands for.")] = 0,
    generation: Annotated[int, typer.Option(min=0, help="Generation to number it.")] = 0,
    name: Annotated[
        str | None,
        typer.Option("--as", help="The object that the source is. By default its keys say it."),
    ] = None,
    endpoint: Endpoint = None,
    region: Region = None,
) -> None:
    """Make a checkpoint of a file, for a job's `checkpoint.resumeFrom`.

    A source of tensors alone becomes `model`; otherwise it must be a dict of state dicts by the
    names that the script gives to `run.checkpointing(…)`. Directories of DCP may run code when they
    are read: import only those of people you trust.

    Examples:
        headway checkpoint import model.safetensors s3://bucket/jobs/imported

        headway checkpoint import state.pt /shared/jobs/imported --step 5000
    """
    with _explained():
        from headway.interop.importing import import_checkpoint  # noqa: PLC0415 (loads torch)

        made = import_checkpoint(
            source,
            uri,
            step=step,
            generation=generation,
            name=name,
            endpoint=endpoint,
            region=region,
        )
    typer.echo(f"{uri} holds {made}. To start from it:\n\n  checkpoint:\n    resumeFrom: {uri}")


@contextmanager
def _explained() -> Iterator[None]:
    """What a user can mend is told in one sentence, without a traceback."""
    try:
        yield
    except KeyError as error:
        _fail(str(error.args[0]), USAGE)
    except (CheckpointError, OSError) as error:
        _fail(str(error), FAILED)
    except (ValueError, TypeError) as error:
        _fail(str(error), USAGE)
    except ImportError as error:
        _fail(
            f"this needs torch and the trainer's parts: pip install 'headway[local]' ({error})",
            USAGE,
        )


def _fail(message: str, code: int) -> None:
    typer.echo(message, err=True)
    raise typer.Exit(code)


def _rows(store: Store) -> list[dict[str, Any]]:
    listing = scan(store)
    rows = [_row(store, each) for each in listing.committed]
    rows += [_empty(each) | {"state": "never committed"} for each in listing.incomplete]
    return sorted(rows, key=lambda row: (row["generation"], row["step"]), reverse=True)


def _row(store: Store, checkpoint: CheckpointId) -> dict[str, Any]:
    try:
        commit = load_commit(store, checkpoint)
    except CorruptCheckpoint as error:
        return _empty(checkpoint) | {"state": error.reason}
    return _empty(checkpoint) | {
        "saved": commit.created.isoformat(timespec="seconds"),
        "ranks": commit.world_size,
        "size": _size(commit),
        "metrics": dict(commit.metrics),
        "state": "committed",
    }


def _empty(checkpoint: CheckpointId) -> dict[str, Any]:
    number = {"step": checkpoint.step, "generation": checkpoint.generation}
    return {**dict.fromkeys(_SHOWN), "checkpoint": _name(checkpoint), **number}


def _name(checkpoint: CheckpointId) -> str:
    return checkpoint.directory.rpartition("/")[2]


def _size(commit: Commit) -> int:
    return sum(part.size + part.state.size for part in commit.parts)


def _shown(key: str, value: Any) -> str:
    if value is None:
        return ""
    if key == "size":
        return filesize.decimal(value)
    if key == "saved":
        return str(value)[:16].replace("T", " ")
    if key == "metrics":
        return ", ".join(f"{name} {number:.4g}" for name, number in sorted(value.items()))
    return str(value)


def _report(store: Store, checkpoint: CheckpointId) -> bool:
    """Verify one checkpoint, and say what was found; returns whether it is bad."""
    try:
        commit = load_commit(store, checkpoint)
    except CorruptCheckpoint as error:
        problems = {checkpoint.commit_key: error.reason}
    else:
        problems = _verify_with_bar(store, commit)
    typer.echo(f"{_name(checkpoint)}: {'DAMAGED' if problems else 'valid'}")
    for key, reason in problems.items():
        typer.echo(f"  {key}: {reason}")
    return bool(problems)


def _verify_with_bar(store: Store, commit: Commit) -> dict[str, str]:
    columns = (TextColumn(_name(commit.id)), BarColumn(), DownloadColumn(), TransferSpeedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("", total=sum(part.size for part in commit.parts))
        return verify_checkpoint(store, commit, lambda nbytes: progress.advance(task, nbytes))
