"""Jobs that lose processes, and how soon they go on: what the benches of recovery share."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from bench import harness
from bench.steps import Steps

WORLD = 2
LIMIT_SECONDS = 40.0
START_SECONDS = 120.0
Launch = Callable[[Path], tuple[Sequence[str], Mapping[str, str]]]
"""Command and environment of a job that has this folder for itself."""


@dataclass(frozen=True)
class Loss:
    """What happens to a job.

    Attributes:
        find: Whom it happens to.
        signal: What they get.
    """

    find: Callable[[Job], Sequence[psutil.Process]]
    signal: signal.Signals = signal.SIGKILL


@dataclass(frozen=True)
class Try:
    """How one loss went.

    Attributes:
        seconds: From the signal to the first finished step of a later generation; None if there
            was none within `LIMIT_SECONDS`.
        lost_steps: Finished steps that were done once more.
        whole_seconds: From the signal until every rank has finished a step of one generation.
            None likewise; the job is of no use for another try then.
    """

    seconds: float | None
    lost_steps: int = 0
    whole_seconds: float | None = None


@dataclass
class Job:
    """A running job of `WORLD` ranks, which tell their steps (see `Steps`) in its folder."""

    process: subprocess.Popen[bytes]
    steps: Steps
    log: Path

    @classmethod
    def start(cls, launch: Launch, folder: Path) -> Job:
        """Start the job, and wait until every rank has finished a step.

        Raises:
            RuntimeError: it did not get there.
        """
        folder.mkdir(parents=True)
        command, env = launch(folder)
        log = folder / "log"
        job = cls(harness.start(command, log, env), Steps(folder, WORLD), log)
        try:
            job.wait_for_steps(1, START_SECONDS)
        except TimeoutError:
            harness.end(job.process)
            raise RuntimeError(f"{folder.name} did not start:\n{harness.tail(log)}") from None
        return job

    def wait_for_steps(self, count: int, seconds: float) -> None:
        """Wait until the newest generation, with all ranks, has finished so many steps."""
        steps = self.steps
        self._wait(
            lambda: steps.whole_at is not None and steps.count >= count, f"{count} steps", seconds
        )

    def wait_for_generation(self, after: int, seconds: float) -> float:
        """When the first generation after this one finished its first step."""
        self._wait(lambda: self.steps.newest > after, "a step after the loss", seconds)
        return self.steps.of(self.steps.newest).first

    def wait_for_all(self, seconds: float) -> float:
        """When every rank had finished a step of the newest generation."""
        self._wait(lambda: self.steps.whole_at is not None, "a step of every rank", seconds)
        assert self.steps.whole_at is not None
        return self.steps.whole_at

    def _wait(self, done: Callable[[], bool], what: str, seconds: float) -> None:
        def look() -> bool:
            self.steps.update()
            if not done() and self.process.poll() is not None:
                raise TimeoutError(f"the job ended with {self.process.returncode}")
            return done()

        harness.wait_for(what, look, seconds)


def any_rank(dice: random.Random) -> Loss:
    """SIGKILL for the process of a random rank."""
    return Loss(lambda job: [psutil.Process(job.steps.pids[dice.randrange(WORLD)])])


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
    lost_steps = job.steps.lost_since(generation)
    try:
        whole = job.wait_for_all(LIMIT_SECONDS - seconds) - lost
    except TimeoutError:
        return Try(seconds, lost_steps)
    return Try(seconds, lost_steps, whole)


@dataclass
class Block:
    """Tries of one contestant in a row, with as many jobs as it takes.

    Attributes:
        name: For messages.
        tries: How many.
        loss: What happens.
        folder: The jobs' folders are in it.
        launch: How a job is started.
        dice: Of moments.
    """

    name: str
    tries: int
    loss: Loss
    folder: Path
    launch: Launch
    dice: random.Random

    def run(self, bar: harness.Bar) -> list[Try]:
        """All tries."""
        found: list[Try] = []
        jobs = 0
        while len(found) < self.tries:
            folder = self.folder / f"{self.name}-{jobs}"
            job = Job.start(self.launch, folder)
            jobs += 1
            try:
                while len(found) < self.tries:
                    with bar.doing(f"{self.name} ({folder.name})"):
                        found.append(lose(job, self.loss, self.dice))
                    if found[-1].whole_seconds is None:
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
