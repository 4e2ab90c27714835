"""An agent on its own that runs a program in the current interpreter."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

Start = Callable[..., "subprocess.Popen[str]"]


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Start]:
    """Starts `headway-agent -- python <options> <program>`; output and errors are one text."""
    started: list[subprocess.Popen[str]] = []

    def run(*words: str, processes: int = 1, **env: str) -> subprocess.Popen[str]:
        place = {
            "HEADWAY_PROCESSES_PER_WORKER": str(processes),
            "HEADWAY_SCRATCH": str(tmp_path),
            "HEADWAY_TERMINATION_LOG": str(tmp_path / "termination"),
            "HEADWAY_POD_IP": f"127.77.{os.getpid() % 250}.{len(started) + 2}",
        }
        process = subprocess.Popen(
            [sys.executable, "-m", "headway.agent", "--", sys.executable, *words],
            env={**os.environ, **place, **env},
            cwd=tmp_path,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        started.append(process)
        return process

    yield run
    for process in started:
        process.kill()
        process.communicate()
