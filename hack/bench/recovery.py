"""`make bench-recovery`: kill -9 of a worker, from the kill to the next finished step."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer
import yaml

from bench import harness
from bench.harness import console

SCRIPT = Path(__file__).with_name("recovery_script.py")
WORLD = 2
LIMIT_SECONDS = 40.0
START_SECONDS = 120.0
PEERS = ("torchrun", "torchrun_no_store_sharing")
Loss = Callable[["Job"], Sequence[psutil.Process]]


# --- what the ranks have written --------------------------------------------------------------


@dataclass
class Steps:
    """The files of the ranks, read as they grow.

    Attributes:
        pids: Process of each rank, by its latest start.
        generation: The latest generation that has finished a step.
        count: Steps finished in it, over all ranks.
        first: When it finished the first, on the monotonic clock.
    """

    folder: Path
    pids: dict[int, int] = field(default_factory=dict)
    generation: int = -1
    count: int = 0
    first: float = 0.0
    _read: dict[int, int] = field(default_factory=dict)

    def update(self) -> None:
        """Read what is new."""
        for rank in range(WORLD):
            with contextlib.suppress(FileNotFoundError):
                data = (self.folder / f"steps.{rank}").read_bytes()
                whole = data.rfind(b"\n") + 1
                for line in data[self._read.get(rank, 0) : whole].decode().splitlines():
                    self._note(rank, *line.split())
                self._read[rank] = whole

    def _note(self, rank: int, kind: str, generation: str, value: str) -> None:
        if kind == "start":
            self.pids[rank] = int(value)
        elif int(generation) > self.generation:
            self.generation, self.count, self.first = int(generation), 1, float(value)
        elif int(generation) == self.generation:
            self.count += 1
            self.first = min(self.first, float(value))


# --- jobs ----------------------------------------------------------------------------------------


@dataclass
class Job:
    """A running job of two ranks."""

    process: subprocess.Popen[bytes]
    steps: Steps
    log: Path

    @classmethod
    def start(cls, name: str, folder: Path, state_mb: int) -> Job:
        """Start the job of this contestant, and wait for its first step."""
        folder.mkdir(parents=True)
        command, env = command_of(name, folder, state_mb)
        log = folder / "log"
        job = cls(harness.start(command, log, env), Steps(folder), log)
        try:
            job.wait_for_steps(1, START_SECONDS)
        except TimeoutError:
            harness.end(job.process)
            raise RuntimeError(f"{name} did not start:\n{harness.tail(log)}") from None
        return job

    def wait_for_steps(self, count: int, seconds: float) -> None:
        """Wait until the current generation has finished so many steps."""
        self._wait(lambda: self.steps.count >= count, f"{count} steps", seconds)

    def wait_for_generation(self, after: int, seconds: float) -> float:
        """When the first generation after this one finished its first step."""
        self._wait(lambda: self.steps.generation > after, "a step after the loss", seconds)
        return self.steps.first

    def _wait(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        def look() -> bool:
            self.steps.update()
            if not done() and self.process.poll() is not None:
                raise TimeoutError(f"the job ended with {self.process.returncode}")
            return done()

        harness.wait_for(what, look, seconds)


def command_of(name: str, folder: Path, state_mb: int) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a contestant's job."""
    script = [str(SCRIPT), "headway" if name == "headway" else "torchrun"]
    script += ["--state-mb", str(state_mb)]
    env = {"BENCH_STEPS": str(folder), "OMP_NUM_THREADS": "1"}
    if name == "headway":
        manifest = folder / "job.yaml"
        manifest.write_text(yaml.safe_dump(trainingjob(["python", *script], folder)))
        command = [sys.executable, "-m", "headway.cli", "run", "-f", str(manifest)]
        return [*command, "--logs", "all", "--state", str(folder / "state")], env
    if name == "torchrun_no_store_sharing":
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, f"--nproc-per-node={WORLD}", "--max-restarts=100000", *script], env


def trainingjob(command: list[str], folder: Path) -> dict[str, Any]:
    """The manifest of our job: two pods with one worker process each."""
    return {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "bench"},
        "spec": {
            "command": command,
            "workers": {"replicas": WORLD},
            "storage": {"uri": str(folder / "storage")},
            "checkpoint": {"everySteps": 25},
            "failurePolicy": {"maxRestarts": 10000},
        },
    }


# --- losses --------------------------------------------------------------------------------------


def any_worker(dice: random.Random) -> Loss:
    """The process of a random rank."""

    def find(job: Job) -> list[psutil.Process]:
        return [psutil.Process(job.steps.pids[dice.randrange(WORLD)])]

    return find


def agent(job: Job) -> list[psutil.Process]:
    """The agent of worker 1."""
    return [min(pod(job), key=lambda p: p.create_time())]


def pod(job: Job) -> list[psutil.Process]:
    """Every process of the pod of worker 1, the agent first."""
    found = [p for p in harness.tree(job.process.pid) if _index(p) == "1"]
    return sorted(found, key=lambda p: p.create_time())


def _index(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HEADWAY_WORKER_INDEX")
    except psutil.Error:
        return None


def lose(job: Job, loss: Loss, dice: random.Random) -> float | None:
    """One try.

    Returns:
        Seconds from the kill to the first finished step of a later generation; None if there
        was none within `LIMIT_SECONDS`.
    """
    job.wait_for_steps(WORLD * dice.randint(5, 60), LIMIT_SECONDS)
    generation = job.steps.generation
    victims = loss(job)
    killed = time.monotonic()
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(victim.pid, signal.SIGKILL)
    try:
        return job.wait_for_generation(generation, LIMIT_SECONDS) - killed
    except TimeoutError:
        return None


# --- the bench -----------------------------------------------------------------------------------


@dataclass
class Block:
    """Tries of one contestant in a row, with as many jobs as it takes."""

    name: str
    tries: int
    loss: Loss
    folder: Path
    state_mb: int
    dice: random.Random

    def run(self, bar: harness.Bar) -> list[float | None]:
        """All tries: seconds each, None where the job did not recover."""
        found: list[float | None] = []
        jobs = 0
        while len(found) < self.tries:
            job = Job.start(self.name, self.folder / f"{self.name}-{jobs}", self.state_mb)
            jobs += 1
            try:
                while len(found) < self.tries:
                    with bar.doing(f"{self.name} ({self.folder.name})"):
                        found.append(lose(job, self.loss, self.dice))
                    if found[-1] is None:
                        break
            finally:
                harness.end(job.process)
        return found


def summary(seconds: Sequence[float | None], prefix: str = "") -> dict[str, Any]:
    """Figures of some tries; one that failed counts with `LIMIT_SECONDS`."""
    known = [LIMIT_SECONDS if each is None else each for each in seconds]
    return {
        f"{prefix}recovered": sum(each is not None for each in seconds),
        f"{prefix}tries": len(seconds),
        f"{prefix}p50_s": harness.percentile(known, 0.5),
        f"{prefix}p99_s": harness.percentile(known, 0.99),
    }


def shares(total: int, blocks: int) -> list[int]:
    """`total` in `blocks` parts that differ by one at most."""
    return [total // blocks + (number < total % blocks) for number in range(blocks)]


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    tries: Annotated[int, typer.Option(help="Killed workers under Headway.")] = 50,
    peer_tries: Annotated[int, typer.Option(help="Killed workers under each torchrun.")] = 15,
    other_tries: Annotated[int, typer.Option(help="Killed agents, and lost pods (Headway).")] = 5,
    blocks: Annotated[int, typer.Option(help="Turns that the contestants take.")] = 3,
    state_mb: Annotated[int, typer.Option(help="Size of the training state in MB.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of victims and moments.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: few tries, one block.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Kill workers at random steps: Headway and torchrun side by side, in turns.

    Two ranks on this machine, PyTorch DDP over gloo, checkpoints every 25 steps into memory. A
    job that finishes no step within 40 s of the kill has failed, and is started anew.

    For example:

        make bench-recovery

        make bench-recovery ARGS="--quick"

        make bench-recovery ARGS="--only headway --tries 200 --seed 7"
    """
    if quick:
        tries, peer_tries, other_tries, blocks = 6, 3, 1, 1
    seed = random.randrange(10**6) if seed is None else seed
    dice = random.Random(seed)
    console.print(f"seed {seed}")
    names = [name for name in ("headway", *PEERS) if not only or name in only]
    plan = {name: shares(tries if name == "headway" else peer_tries, blocks) for name in names}
    found: dict[str, list[float | None]] = {name: [] for name in names}
    others: dict[str, list[float | None]] = {}
    extra = {"agent_": agent, "pod_": pod} if "headway" in names and other_tries else {}
    total = sum(map(sum, plan.values())) + len(extra) * other_tries
    with (
        harness.workspace("recovery", keep, in_memory=True) as folder,
        harness.Bar(total) as bar,
    ):
        for number, name in harness.rounds(names, blocks, seed):
            place = folder / f"kills-{number}"
            block = Block(name, plan[name][number], any_worker(dice), place, state_mb, dice)
            found[name] += block.run(bar)
        for prefix, loss in extra.items():
            place = folder / loss.__name__
            others[prefix] = Block("headway", other_tries, loss, place, state_mb, dice).run(bar)
    results = {name: summary(each) for name, each in found.items()}
    for prefix, each in others.items():
        results["headway"] |= summary(each, prefix)
    harness.show(
        "from kill -9 to the next finished step",
        results,
        [f"seed {seed}; a try that failed counts with {LIMIT_SECONDS:g} s"],
    )


if __name__ == "__main__":
    harness.run(main)
