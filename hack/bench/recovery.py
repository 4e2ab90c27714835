"""`make bench-recovery`: from the loss of a process or a pod to the next finished step."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from bench import harness
from bench.harness import console
from bench.steps import Steps

SCRIPT = Path(__file__).with_name("recovery_script.py")
WORLD = 2
LIMIT_SECONDS = 40.0
START_SECONDS = 120.0
PEERS = ("torchrun", "torchrun_no_store_sharing")


@dataclass(frozen=True)
class Loss:
    """What happens to a job.

    Attributes:
        find: Whom it happens to.
        signal: What they get.
        loader_workers: Processes of each rank's data loader.
    """

    find: Callable[[Job], Sequence[psutil.Process]]
    signal: signal.Signals = signal.SIGKILL
    loader_workers: int = 0


@dataclass(frozen=True)
class Try:
    """How one loss went.

    Attributes:
        seconds: From the signal to the first finished step of a later generation; None if there
            was none within `LIMIT_SECONDS`.
        lost_steps: Finished steps that were done once more.
    """

    seconds: float | None
    lost_steps: int = 0


# --- jobs ----------------------------------------------------------------------------------------


@dataclass
class Job:
    """A running job of two ranks."""

    process: subprocess.Popen[bytes]
    steps: Steps
    log: Path

    @classmethod
    def start(cls, name: str, folder: Path, state_mb: int, loader_workers: int) -> Job:
        """Start the job of this contestant, and wait for its first step."""
        folder.mkdir(parents=True)
        command, env = command_of(name, folder, state_mb, loader_workers)
        log = folder / "log"
        job = cls(harness.start(command, log, env), Steps(folder, WORLD), log)
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
        self._wait(lambda: self.steps.newest > after, "a step after the loss", seconds)
        return self.steps.of(self.steps.newest).first

    def _wait(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        def look() -> bool:
            self.steps.update()
            if not done() and self.process.poll() is not None:
                raise TimeoutError(f"the job ended with {self.process.returncode}")
            return done()

        harness.wait_for(what, look, seconds)


def command_of(
    name: str, folder: Path, state_mb: int, loader_workers: int
) -> tuple[list[str], dict[str, str]]:
    """Command and environment of a contestant's job."""
    script = [str(SCRIPT), "headway" if name == "headway" else "torchrun"]
    script += ["--state-mb", str(state_mb), "--loader-workers", str(loader_workers)]
    env = {"BENCH_STEPS": str(folder), "OMP_NUM_THREADS": "1"}
    if name == "headway":
        every, policy = {"everySteps": 25}, {"maxRestarts": 10000}
        ours = harness.headway_run(script, folder, WORLD, checkpoint=every, failurePolicy=policy)
        return ours, env
    if name == "torchrun_no_store_sharing":
        env["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    return [*command, f"--nproc-per-node={WORLD}", "--max-restarts=100000", *script], env


# --- losses --------------------------------------------------------------------------------------


def any_worker(dice: random.Random) -> Loss:
    """SIGKILL for the process of a random rank."""
    return Loss(lambda job: [psutil.Process(job.steps.pids[dice.randrange(WORLD)])])


def agent(job: Job) -> list[psutil.Process]:
    """The agent of worker 1."""
    return pod(job, 1)[:1]


def pod(job: Job, index: int = 1) -> list[psutil.Process]:
    """Every process of the pod of a worker, the agent first."""
    found = [p for p in harness.tree(job.process.pid) if _index(p) == str(index)]
    return sorted(found, key=lambda p: p.create_time())


def preemption(dice: random.Random) -> Loss:
    """SIGTERM for the agent of a random worker, as the kubelet does it to a pod."""
    return Loss(lambda job: pod(job, dice.randrange(WORLD))[:1], signal.SIGTERM, 1)


def _index(process: psutil.Process) -> str | None:
    try:
        return process.environ().get("HEADWAY_WORKER_INDEX")
    except psutil.Error:
        return None


def lose(job: Job, loss: Loss, dice: random.Random) -> Try:
    """One try, after a random number of steps."""
    job.wait_for_steps(WORLD * dice.randint(5, 60), LIMIT_SECONDS)
    generation = job.steps.newest
    victims = loss.find(job)
    lost = time.monotonic()
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            os.kill(victim.pid, loss.signal)
    try:
        seconds = job.wait_for_generation(generation, LIMIT_SECONDS) - lost
    except TimeoutError:
        return Try(None)
    return Try(seconds, job.steps.lost_since(generation))


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

    def run(self, bar: harness.Bar) -> list[Try]:
        """All tries."""
        found: list[Try] = []
        jobs = 0
        while len(found) < self.tries:
            folder = self.folder / f"{self.name}-{jobs}"
            job = Job.start(self.name, folder, self.state_mb, self.loss.loader_workers)
            jobs += 1
            try:
                while len(found) < self.tries:
                    with bar.doing(f"{self.name} ({self.folder.name})"):
                        found.append(lose(job, self.loss, self.dice))
                    if found[-1].seconds is None:
                        break
            finally:
                harness.end(job.process)
        return found


def summary(tries: Sequence[Try], prefix: str = "") -> dict[str, Any]:
    """Figures of some tries; one that failed counts with `LIMIT_SECONDS`."""
    known = [LIMIT_SECONDS if each.seconds is None else each.seconds for each in tries]
    return {
        f"{prefix}recovered": sum(each.seconds is not None for each in tries),
        f"{prefix}tries": len(tries),
        f"{prefix}p50_s": harness.percentile(known, 0.5),
        f"{prefix}p99_s": harness.percentile(known, 0.99),
        f"{prefix}lost_steps": sum(each.lost_steps for each in tries) / max(len(tries), 1),
    }


def shares(total: int, blocks: int) -> list[int]:
    """`total` in `blocks` parts that differ by one at most."""
    return [total // blocks + (number < total % blocks) for number in range(blocks)]


def main(  # noqa: PLR0913, PLR0917 (each is an option)
    tries: Annotated[int, typer.Option(help="Killed workers under Headway.")] = 50,
    peer_tries: Annotated[int, typer.Option(help="Killed workers under each torchrun.")] = 15,
    other_tries: Annotated[int, typer.Option(help="Killed agents, and lost pods (Headway).")] = 5,
    preemptions: Annotated[int, typer.Option(help="Pods that get SIGTERM (Headway).")] = 50,
    blocks: Annotated[int, typer.Option(help="Turns that the contestants take.")] = 3,
    state_mb: Annotated[int, typer.Option(help="Size of the training state in MB.")] = 1,
    only: Annotated[list[str] | None, typer.Option(help="Only these contestants.")] = None,
    seed: Annotated[int | None, typer.Option(help="Seed of victims and moments.")] = None,
    quick: Annotated[bool, typer.Option(help="A look: few tries, one block.")] = False,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, kept afterwards.")] = None,
) -> None:
    """Kill workers at random steps: Headway and torchrun side by side, in turns.

    Then, under Headway only: killed agents, lost pods, and pods that are taken away (SIGTERM).

    Two ranks on this machine, PyTorch DDP over gloo, checkpoints every 25 steps into memory. A
    job that finishes no step within 40 s of the kill has failed, and is started anew.

    For example:

        make bench-recovery

        make bench-recovery ARGS="--quick"

        make bench-recovery ARGS="--only headway --tries 200 --seed 7"
    """
    if quick:
        tries, peer_tries, other_tries, preemptions, blocks = 6, 3, 1, 3, 1
    seed = random.randrange(10**6) if seed is None else seed
    dice = random.Random(seed)
    console.print(f"seed {seed}")
    names = [name for name in ("headway", *PEERS) if not only or name in only]
    plan = {name: shares(tries if name == "headway" else peer_tries, blocks) for name in names}
    found: dict[str, list[Try]] = {name: [] for name in names}
    others = {
        "agent_": (Loss(agent), other_tries),
        "pod_": (Loss(pod), other_tries),
        "sigterm_": (preemption(dice), preemptions),
    }
    if "headway" not in names:
        others.clear()
    total = sum(map(sum, plan.values())) + sum(count for _, count in others.values())
    with (
        harness.workspace("recovery", keep, in_memory=True) as folder,
        harness.Bar(total) as bar,
    ):
        for number, name in harness.rounds(names, blocks, seed):
            place = folder / f"kills-{number}"
            block = Block(name, plan[name][number], any_worker(dice), place, state_mb, dice)
            found[name] += block.run(bar)
        extra = {
            prefix: Block("headway", count, loss, folder / prefix, state_mb, dice).run(bar)
            for prefix, (loss, count) in others.items()
        }
    results = {name: summary(each) for name, each in found.items()}
    for prefix, each in extra.items():
        results["headway"] |= summary(each, prefix)
    harness.show(
        "from the loss to the next finished step",
        results,
        [f"seed {seed}; a try that failed counts with {LIMIT_SECONDS:g} s"],
    )


if __name__ == "__main__":
    harness.run(main)
