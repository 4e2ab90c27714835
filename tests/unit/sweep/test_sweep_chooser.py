"""Configurations are chosen in another process, and are the same as in this one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import psutil
import pytest
from test_sweep_objects import a_sweep

from headway_operator.sweep import chooser
from headway_operator.sweep.chooser import ChoosingFailed, ProcessChooser, chosen
from headway_operator.sweep.plan import New
from headway_operator.sweep.trial import Trial

SWEEP = a_sweep(algorithm={"name": "tpe", "startupTrials": 2}, maxTrials=20)
NEW = [New(5, until=9), New(6)]


def trials() -> Sequence[Trial]:
    return [Trial(i, {"x": i / 10}, "Complete", (abs(i / 10 - 0.3),)) for i in range(5)]


def test_another_process_chooses_the_same() -> None:
    async def there() -> object:
        process = ProcessChooser()
        try:
            return await process(SWEEP, trials(), (), NEW)
        finally:
            process.close()

    assert asyncio.run(there()) == chosen(SWEEP, trials(), (), NEW)


def test_a_process_that_has_died_is_started_anew() -> None:
    async def there() -> object:
        process = ProcessChooser()
        try:
            await process(SWEEP, trials(), (), NEW)
            assert process._pool is not None
            (pid,) = process._pool._processes
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ChoosingFailed, match="has died"):
                await process(SWEEP, trials(), (), NEW)
            return await process(SWEEP, trials(), (), NEW)
        finally:
            process.close()

    assert asyncio.run(there()) == chosen(SWEEP, trials(), (), NEW)


def test_what_a_library_stumbles_over_is_told_and_may_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    def stumble(_: object) -> None:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(chooser, "suggest", stumble)
    with pytest.raises(ChoosingFailed, match="tpe could not choose trial 5: ZeroDivisionError: a"):
        chosen(SWEEP, trials(), (), NEW)


def test_its_process_ends_when_the_operator_is_killed() -> None:
    script = (
        "import asyncio, sys; sys.path.insert(0, sys.argv[1]); import test_sweep_chooser as t; "
        "chooser = t.ProcessChooser(); asyncio.run(chooser(t.SWEEP, t.trials(), (), t.NEW)); "
        "print(*chooser._pool._processes, flush=True); sys.stdin.read()"
    )
    here = str(Path(__file__).parent)
    with subprocess.Popen(
        [sys.executable, "-c", script, here], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as operator:
        assert operator.stdout is not None
        chooser = psutil.Process(int(operator.stdout.readline()))
        operator.kill()
        _, left = psutil.wait_procs([chooser], timeout=20)
    for process in left:
        process.kill()
    assert not left, "it waits for questions that will never come"


def test_the_operators_own_process_never_loads_what_searches() -> None:
    script = (
        "import sys, headway_operator.app; "
        "print(sorted({'optuna', 'scipy', 'numpy', 'cmaes'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"
