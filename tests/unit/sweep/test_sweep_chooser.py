"""Configurations are chosen in another process, and are the same as in this one."""

import asyncio
import os
import signal
import subprocess
import sys
from collections.abc import Sequence

import pytest
from test_sweep_objects import a_sweep

from headway_operator.sweep.chooser import ChoosingFailed, ProcessChooser, chosen
from headway_operator.sweep.plan import New
from headway_operator.sweep.trial import Trial

SWEEP = a_sweep(algorithm={"name": "tpe", "startupTrials": 2}, maxTrials=20)
NEW = [New(5, until=9), New(6)]


def trials() -> Sequence[Trial]:
    return [Trial(i, {"x": i / 10}, "Complete", (abs(i / 10 - 0.3),)) for i in range(5)]


def test_another_process_chooses_the_same() -> None:
    async def there() -> object:
        chooser = ProcessChooser()
        try:
            return await chooser(SWEEP, trials(), (), NEW)
        finally:
            chooser.close()

    assert asyncio.run(there()) == chosen(SWEEP, trials(), (), NEW)


def test_a_process_that_has_died_is_started_anew() -> None:
    async def there() -> object:
        chooser = ProcessChooser()
        try:
            await chooser(SWEEP, trials(), (), NEW)
            assert chooser._pool is not None
            (pid,) = chooser._pool._processes
            os.kill(pid, signal.SIGKILL)
            with pytest.raises(ChoosingFailed, match="has died"):
                await chooser(SWEEP, trials(), (), NEW)
            return await chooser(SWEEP, trials(), (), NEW)
        finally:
            chooser.close()

    assert asyncio.run(there()) == chosen(SWEEP, trials(), (), NEW)


def test_notes_of_a_trial_that_no_algorithm_can_read_are_told_and_may_pass() -> None:
    """Whoever may edit TrainingJobs may write anything there."""
    two = [{"name": name, "float": {"min": 0, "max": 1}} for name in "xy"]
    sweep = a_sweep(algorithm={"name": "cmaes"}, parameters=two)
    edited = [Trial(0, {"x": 0.1, "y": 0.1}, "Complete", (1.0,), attrs={"cmaes": {"place": "?"}})]
    with pytest.raises(ChoosingFailed, match=r"cmaes could not choose trial 5: \w+Error"):
        chosen(sweep, edited, (), NEW)


def test_the_operators_own_process_never_loads_what_searches() -> None:
    script = (
        "import sys, headway_operator.app; "
        "print(sorted({'optuna', 'scipy', 'numpy', 'cmaes'} & set(sys.modules)))"
    )
    told = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True
    )
    assert told.stdout.strip() == "[]"
