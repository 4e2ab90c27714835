"""SIGTERM: the agent's for the ranks, as always for what they start."""

from __future__ import annotations

import multiprocessing
import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from headway.train import sigterm


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    before = signal.signal(signal.SIGTERM, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGTERM, before)


def test_a_rank_takes_no_notice() -> None:
    sigterm.leave_to_agent()
    os.kill(os.getpid(), signal.SIGTERM)
    assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL


def wait_for_ever(runs: Any) -> None:
    runs.set()
    threading.Event().wait()


def test_what_a_rank_starts_still_ends() -> None:
    """Pools and subprocesses are ended by this signal, and then waited for."""
    sigterm.leave_to_agent()
    context = multiprocessing.get_context("fork")
    runs = context.Event()
    child = context.Process(target=wait_for_ever, args=(runs,), daemon=True)
    child.start()
    assert runs.wait(20)
    child.terminate()
    child.join(20)
    code = child.exitcode
    child.kill()
    assert code == -signal.SIGTERM
    with subprocess.Popen(["sleep", "60"]) as process:
        process.terminate()
        assert process.wait(20) == -signal.SIGTERM


def test_a_handler_of_the_script_stays() -> None:
    def own(*_: object) -> None: ...

    signal.signal(signal.SIGTERM, own)
    sigterm.leave_to_agent()
    assert signal.getsignal(signal.SIGTERM) is own


def test_in_another_thread_nothing_happens() -> None:
    thread = threading.Thread(target=sigterm.leave_to_agent)
    thread.start()
    thread.join(20)
    assert signal.getsignal(signal.SIGTERM) is signal.SIG_DFL
