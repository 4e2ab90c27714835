"""Choosing configurations off the event loop, in a process of its own.

A suggestion takes up to hundreds of milliseconds of computing, and Optuna much memory: neither is
for the process in which all jobs are looked after.
"""

from __future__ import annotations

import asyncio
import multiprocessing
import os
import signal
import threading
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Protocol

from headway_operator.sweep.plan import Chosen, New
from headway_operator.sweep.suggest import (
    AlgorithmMissing,
    Request,
    SpaceExhausted,
    suggest,
)
from headway_operator.sweep.trial import Trial
from headway_operator.sweep.view import Sweep
from headway_operator.trainingjob.stuck import Stuck


class ChoosingFailed(Exception):  # noqa: N818 - named like its cause
    """No configuration could be chosen, for a reason that may pass; the text says which."""


class Choose(Protocol):
    """Chooses configurations, each in the knowledge of those before."""

    async def __call__(
        self, sweep: Sweep, trials: Sequence[Trial], warm: Sequence[Trial], new: Sequence[New]
    ) -> tuple[Sequence[Chosen], bool]:
        """The configurations, and whether there are no more.

        Raises:
            Stuck: the algorithm can't be used here.
            ChoosingFailed: it failed this time.
        """


def chosen(
    sweep: Sweep, trials: Sequence[Trial], warm: Sequence[Trial], new: Sequence[New]
) -> tuple[list[Chosen], bool]:
    """What `Choose` does, in this process: a pure function of its arguments."""
    known = list(trials)
    found: list[Chosen] = []
    for each in new:
        request = Request(
            parameters=tuple(sweep.spec.parameters),
            directions=tuple(objective.direction for objective in sweep.spec.objectives),
            algorithm=sweep.spec.algorithm,
            initial_points=tuple(sweep.spec.initial_points or ()),
            trials=tuple(known),
            warm=tuple(warm),
            index=each.index,
            seed=sweep.seed,
        )
        try:
            answer = suggest(request)
        except SpaceExhausted:
            return found, True
        except AlgorithmMissing as error:
            raise Stuck("AlgorithmMissing", str(error)) from None
        except Exception as error:
            # What trials say of themselves can be edited, and libraries have bugs: the user is
            # to read it in the status, and other sweeps go on.
            said = f"{sweep.spec.algorithm.name} could not choose trial {each.index}"
            raise ChoosingFailed(f"{said}: {type(error).__name__}: {error}") from error
        found.append(Chosen(answer.params, answer.attrs))
        known.append(
            Trial(each.index, answer.params, "Running", until=each.until, attrs=answer.attrs)
        )
    return found, False


class ProcessChooser:
    """`Choose` in a process that is started when it is first needed, and anew when it has died."""

    def __init__(self) -> None:
        self._pool: ProcessPoolExecutor | None = None

    async def __call__(
        self, sweep: Sweep, trials: Sequence[Trial], warm: Sequence[Trial], new: Sequence[New]
    ) -> tuple[Sequence[Chosen], bool]:
        """See `Choose`."""
        if self._pool is None:
            # Not forked: this process has threads, a loop and connections.
            context = multiprocessing.get_context("spawn")
            self._pool = ProcessPoolExecutor(1, mp_context=context, initializer=_alone)
        loop = asyncio.get_running_loop()
        try:
            return await loop.run_in_executor(self._pool, chosen, sweep, trials, warm, new)
        except BrokenProcessPool:
            self.close()
            raise ChoosingFailed(
                "the process that chooses configurations has died: does the operator's memory "
                "limit leave it 300 MB?"
            ) from None

    def close(self) -> None:
        """End the process."""
        if self._pool is not None:
            self._pool.shutdown(wait=False, cancel_futures=True)
            self._pool = None


def _alone() -> None:
    """Neither a Ctrl-C in the terminal ends this process, nor does it outlive a killed operator.

    One thread: these matrices are small, and threads would wait for each other.
    """
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = "1"
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    assert parent is not None

    def wait() -> None:
        parent.join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
