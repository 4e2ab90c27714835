"""`make bench-checkpoint`: what saving costs the training, Headway beside its peers."""

from __future__ import annotations

import contextlib
import time
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench import harness, peers
from bench.contestants import ENTRIES, absent
from bench.cpus import HELP, Cpus
from bench.figures import Turn, turn_of
from bench.harness import console
from bench.trainers import SETTLE_SECONDS, Peak, Trainer, TrainerError, Watch
from bench.turns import Message

STEPS_BEFORE = 5
VACUUM_ROUNDS = 3
KINDS = ("loop", "back_to_back", "idle")


@dataclass(frozen=True)
class Plan:
    """How much of what, and on which CPUs.

    Attributes:
        size_mb: Size of model and optimizer.
        turns: Saves of each kind.
        cpus: Who may use which.
        seed: Seed of the order within each round.
    """

    size_mb: int
    turns: dict[str, int]
    cpus: Cpus
    seed: int


# --- one contestant ----------------------------------------------------------------------------


def start(name: str, plan: Plan, storage: harness.Storage, folder: Path) -> Trainer:
    """Start a contestant's trainer, and wait until it can take turns.

    Raises:
        TrainerError: it did not get there.
    """
    script = ["bench.checkpoint_trainer", name, str(plan.size_mb)]
    trainer = Trainer.start(name, script, storage, folder, plan.cpus)
    try:
        trainer.answer()
        trainer.own = trainer.used_by_script()
        trainer.tell({"go": True})
        trainer.answer()
    except TrainerError:
        trainer.stop()
        raise
    return trainer


def take_turn(trainer: Trainer, kind: str) -> Message:
    """Have it save once, and clean up.

    Raises:
        TrainerError: it did not answer.
    """
    trainer.saves += 1
    key = f"{trainer.name}/{trainer.saves}"
    with Watch(trainer) if trainer.name == "headway" else contextlib.nullcontext():
        trainer.tell({"kind": kind, "key": key, "before": STEPS_BEFORE})
        found = _idle(trainer) if kind == "idle" else trainer.answer()
    time.sleep(SETTLE_SECONDS)
    if trainer.name != "headway":  # ours removes old checkpoints itself
        trainer.storage.clear(key)
    return found


def _idle(trainer: Trainer) -> Message:
    trainer.answer()
    cpu = trainer.cpu()
    with Peak(trainer) as peak:
        trainer.tell({"go": True})
        found = trainer.answer()
    time.sleep(SETTLE_SECONDS)
    return {**found, "cpu": trainer.cpu() - cpu, "memory": peak.bytes - trainer.own}


def summary(kinds: dict[str, list[Message]]) -> dict[str, Any]:
    """Medians of one contestant's turns."""
    loop: list[Turn] = [turn_of(each) for each in kinds["loop"]]
    back_to_back = [turn_of(each) for each in kinds["back_to_back"]]
    idle = kinds["idle"]
    return {
        "stall_ms": harness.median(1000 * turn.stall for turn in loop),
        "stall_max_ms": max((1000 * turn.stall for turn in loop), default=None),
        "stall_back_to_back_ms": harness.median(1000 * turn.stall for turn in back_to_back),
        "call_ms": harness.median(1000 * (turn.call[1] - turn.call[0]) for turn in loop),
        "lost_ms": harness.median(1000 * turn.lost for turn in loop),
        "durable_s": harness.median(turn.until_durable for turn in loop),
        "durable_idle_s": harness.median(each["durable"] - each["call"][0] for each in idle),
        "speed_ratio": harness.median(turn.speed_ratio for turn in loop),
        "client_cpu_s": harness.median(each["cpu"] for each in idle),
        "rss_mb": harness.median(each["memory"] / 1e6 for each in idle),
        "step_ms": harness.median(1000 * turn.step for turn in loop),
        "saves": sum(map(len, kinds.values())),
    }


# --- all of them ---------------------------------------------------------------------------------


@dataclass
class Field:
    """All trainers at once, of which one works."""

    plan: Plan
    folder: Path
    stack: ExitStack

    def __post_init__(self) -> None:
        self.failed: dict[str, str] = {}
        self.trainers: dict[str, Trainer] = {}
        self.found: dict[str, dict[str, list[Message]]] = defaultdict(lambda: defaultdict(list))
        server = harness.storage(self.folder, self.plan.cpus.server)
        self.storage = self.stack.enter_context(server)

    def enter(self, name: str) -> None:
        """Start a contestant. Its first save sets up what the later ones reuse: it isn't used."""
        try:
            trainer = start(name, self.plan, self.storage, self.folder)
        except TrainerError as error:
            self.failed[name] = str(error)
            return
        self.stack.callback(trainer.stop)
        self.trainers[name] = trainer
        self.take(name, "loop")
        self.found.pop(name, None)

    def take(self, name: str, kind: str) -> None:
        """A turn of a contestant; one that fails is out."""
        if name not in self.trainers:
            return
        try:
            self.found[name][kind].append(take_turn(self.trainers[name], kind))
        except TrainerError as error:
            self.failed[name] = str(error)
            self.trainers.pop(name).stop()


def compare(names: Sequence[str], plan: Plan, folder: Path) -> Field:
    """Run all turns."""
    total = len(names) * (1 + sum(plan.turns.values()))
    with ExitStack() as stack, harness.Bar(total) as bar:
        field = Field(plan, folder, stack)
        for name in names:
            with bar.doing(f"{name} (first)"):
                field.enter(name)
        for kind in KINDS:
            for number, name in harness.rounds(names, plan.turns[kind], plan.seed):
                with bar.doing(f"{name} ({kind})"):
                    field.take(name, kind)
                if name == names[-1] and number % VACUUM_ROUNDS == VACUUM_ROUNDS - 1:
                    field.storage.vacuum()
    return field


def check_memory(count: int, size_mb: int) -> None:
    """All trainers live at once: see that they can.

    Raises:
        typer.Exit: there is not enough memory.
    """
    need = count * (size_mb * 3e6 + 5e8)
    if psutil.virtual_memory().available < need:
        console.print(
            f"{count} trainers at once need about {need / 1e9:.0f} GB of memory: "
            f"choose some with --only, or a smaller --size-mb",
            style="red",
        )
        raise typer.Exit(2)


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    saves: Annotated[int, typer.Option(help="Saves of each contestant in the training loop.")] = 7,
    back_to_back: Annotated[int, typer.Option(help="Saves with nothing but optimizer steps.")] = 2,
    idle: Annotated[int, typer.Option(help="Saves without training (CPU, memory).")] = 1,
    size_mb: Annotated[int, typer.Option(help="Size of model and optimizer in MB.")] = 400,
    cpus: Annotated[Cpus, typer.Option(help=HELP)] = Cpus.SPARE,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: a few saves each.")] = False,
    seed: Annotated[int, typer.Option(help="Seed of the order within each round.")] = 0,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Save 400 MB to S3 (SeaweedFS) in a training loop: Headway and its peers, in turns.

    For example:

        make bench-checkpoint

        make bench-checkpoint ARGS="--quick"

        make bench-checkpoint ARGS="--cpus one --only headway --only dcp_async"
    """
    turns = dict(zip(KINDS, (2, 1, 1) if quick else (saves, back_to_back, idle), strict=True))
    wanted = harness.chosen(ENTRIES, only)
    missing = absent(wanted)
    names = [name for name in wanted if name not in missing]
    check_memory(len(names), size_mb)
    with harness.workspace("checkpoint", keep) as folder:
        field = compare(names, Plan(size_mb, turns, cpus, seed), folder)
    results = {name: summary(kinds) for name, kinds in field.found.items()}
    harness.show(
        f"saving {size_mb} MB to S3 (--cpus {cpus.value})",
        {name: results[name] for name in names if name in results},
        failures={**missing, **field.failed, **peers.NOT_TRIED},
    )


if __name__ == "__main__":
    harness.run(main)
