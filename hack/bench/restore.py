"""`make bench-restore`: from nothing to a restored model and optimizer, beside the peers."""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import typer

from bench import harness
from bench.contestants import absent
from bench.cpus import HELP, Cpus
from bench.trainers import OURS, Trainer, TrainerError, Watch

NAMES = {
    "headway": "headway",
    "headway_memory": "headway",
    "torch_load_boto3": "torch_save_boto3",
    "dcp_s3fs": "dcp_save",
    "s3torchconnector": "s3torchconnector",
}
"""Names of this bench, and the contestant behind each."""


@dataclass
class Entrant:
    """One name, with the checkpoint that it restores again and again.

    Attributes:
        digest: Checksum of the state that was saved.
        alive: The process that holds it in memory, for those that do.
        pid: The script of the latest try.
    """

    name: str
    size_mb: int
    storage: harness.Storage
    folder: Path
    cpus: Cpus
    digest: int = 0
    pid: int = 0
    alive: Trainer | None = None
    tries: list[dict[str, Any]] = field(default_factory=list)

    def _start(self, number: int) -> Trainer:
        script = ["bench.restore_trainer", NAMES[self.name], str(self.size_mb)]
        folder = self.folder / f"{self.name}-{number}"
        return Trainer.start(self.name, script, self.storage, folder, self.cpus)

    def save(self) -> None:
        """Have the checkpoint made.

        Raises:
            TrainerError: it could not be made.
        """
        trainer = self._start(0)
        try:
            self.pid = trainer.answer()["pid"]
            with Watch(trainer) if self.name in OURS else contextlib.nullcontext():
                trainer.tell({"do": "save", "key": self.name})
                self.digest = trainer.answer()["digest"]
        except TrainerError:
            trainer.stop()
            raise
        if self.name == "headway_memory":
            self.alive = trainer
        else:
            trainer.stop()

    def restore(self, number: int) -> None:
        """One try, in a new process.

        Raises:
            TrainerError: it failed.
        """
        trainer = self.alive or self._start(number)
        try:
            if self.alive:  # its agent starts it anew
                os.kill(self.pid, signal.SIGKILL)
                trainer.connect()
            self.pid = trainer.answer()["pid"]
            trainer.tell({"do": "load", "key": self.name})
            trainer.answer()
            trainer.tell({"go": True})
            self.tries.append(trainer.answer())
        finally:
            if not self.alive:
                trainer.stop()

    def summary(self) -> dict[str, Any]:
        """Medians of its tries."""
        found = {
            "restore_s": harness.median(each["seconds"] for each in self.tries),
            "restore_max_s": max(each["seconds"] for each in self.tries),
            "client_cpu_s": harness.median(each["cpu"] for each in self.tries),
            "bit_exact": sum(each["digest"] == self.digest for each in self.tries),
            "tries": len(self.tries),
        }
        if self.alive:  # its log says where each restore came from
            found["from_memory"] = self.alive.log.read_text().count("from memory)")
        return found


def compare(entrants: Sequence[Entrant], tries: int, seed: int, stack: ExitStack) -> dict[str, str]:
    """Run all tries; returns who failed, and why."""
    failed: dict[str, str] = {}
    by_name = {each.name: each for each in entrants}

    def attempt(name: str, what: str, work: Callable[[], None]) -> None:
        with bar.doing(f"{name} ({what})"):
            if name in failed:
                return
            try:
                work()
            except TrainerError as error:
                failed[name] = str(error)

    with harness.Bar(len(entrants) * (1 + tries)) as bar:
        for name, entrant in by_name.items():
            attempt(name, "save", entrant.save)
            if entrant.alive:
                stack.callback(entrant.alive.stop)
        for number, name in harness.rounds(list(by_name), tries, seed):
            attempt(name, "restore", partial(by_name[name].restore, number + 1))
    return failed


def main(
    tries: Annotated[int, typer.Option(help="Restores of each contestant.")] = 10,
    size_mb: Annotated[int, typer.Option(help="Size of model and optimizer in MB.")] = 400,
    cpus: Annotated[Cpus, typer.Option(help=HELP)] = Cpus.ANY,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: two restores each.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the order within each round.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Restore 400 MB from S3 (SeaweedFS): Headway and its peers, a new process for each try.

    The clock runs from a new model and an optimizer without state to both restored; imports and
    process groups are there before. `headway_memory` restores after its process was killed in
    place. Every restored state is compared with the saved one, bit by bit.

    For example:

        make bench-restore

        make bench-restore ARGS="--quick --cpus one"
    """
    wanted = harness.chosen(NAMES, only)
    missing = {name: why for name in wanted for why in absent([NAMES[name]]).values()}
    with harness.workspace("restore", keep) as folder, ExitStack() as stack:
        storage = stack.enter_context(harness.storage(folder, cpus.server))
        entrants = [
            Entrant(name, size_mb, storage, folder, cpus) for name in wanted if name not in missing
        ]
        failed = compare(entrants, 2 if quick else tries, seed, stack)
        results = {each.name: each.summary() for each in entrants if each.tries}
    harness.show(
        f"restoring {size_mb} MB from S3 (--cpus {cpus.value})",
        results,
        failures={**missing, **failed},
    )


if __name__ == "__main__":
    harness.run(main)
