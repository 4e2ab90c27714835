"""The benches' view of processes: what a job's ranks wrote, and how much memory a family has."""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
from pathlib import Path

from bench import memory
from bench.steps import Steps

MB = 1_000_000


def test_steps_follow_the_files_as_they_grow(tmp_path: Path) -> None:
    steps = Steps(tmp_path, ranks=2)
    (tmp_path / "steps.0").write_text("start 1 100\nstep 1 26 5.0\nstep 1 27 6.0\nste")
    steps.update()
    assert (steps.newest, steps.count, steps.of(1).first, steps.pids) == (1, 2, 5.0, {0: 100})
    with (tmp_path / "steps.0").open("a") as more:
        more.write("p 1 28 7.0\nstart 2 101\n")
    (tmp_path / "steps.1").write_text("start 2 102\nstep 2 26 8.5\n")
    steps.update()
    assert (steps.newest, steps.count, steps.of(2).first) == (2, 1, 8.5)
    assert steps.pids == {0: 101, 1: 102}


def test_a_late_line_of_an_old_generation_is_no_recovery(tmp_path: Path) -> None:
    steps = Steps(tmp_path, ranks=2)
    (tmp_path / "steps.0").write_text("step 2 8 8.0\n")
    (tmp_path / "steps.1").write_text("step 1 9 9.0\n")
    steps.update()
    assert (steps.newest, steps.count, steps.of(2).first) == (2, 1, 8.0)


def test_a_generation_is_whole_when_every_rank_has_finished_a_step(tmp_path: Path) -> None:
    steps = Steps(tmp_path, ranks=2)
    (tmp_path / "steps.0").write_text("step 1 8 1.0\nstep 1 9 2.0\nstep 2 8 5.0\nstep 2 9 6.0\n")
    (tmp_path / "steps.1").write_text("step 1 8 1.1\n")
    steps.update()
    assert steps.whole_at is None  # rank 1 is not in generation 2 yet
    with (tmp_path / "steps.1").open("a") as more:
        more.write("step 2 10 7.0\nstep 2 11 8.0\n")
    steps.update()
    assert (steps.whole_at, steps.of(2).first) == (7.0, 5.0)


def test_steps_that_were_trained_and_are_done_once_more_are_lost(tmp_path: Path) -> None:
    steps = Steps(tmp_path, ranks=2)
    (tmp_path / "steps.0").write_text("trained 1 30 5.0\nstep 1 30 5.5\ntrained 1 31 6.0\n")
    (tmp_path / "steps.1").write_text("trained 1 30 5.0\nstep 2 26 8.0\nstep 2 27 8.2\n")
    steps.update()
    assert steps.lost_since(1) == 6  # 26 to 31


def test_a_step_that_was_saved_at_once_is_not_lost(tmp_path: Path) -> None:
    steps = Steps(tmp_path, ranks=1)
    (tmp_path / "steps.0").write_text("step 1 30 5.5\ntrained 1 31 6.0\nstep 2 32 8.0\n")
    steps.update()
    assert steps.lost_since(1) == 0


def test_memory_that_two_processes_share_counts_once() -> None:
    shared = os.memfd_create("bench-test")
    os.truncate(shared, 64 * MB)
    with mmap.mmap(shared, 64 * MB) as pages:
        before = memory.used([os.getpid()])
        pages.write(b"x" * 64 * MB)
        wait = f"import mmap, sys; m = mmap.mmap({shared}, 0); print(len(m[:])); sys.stdin.read()"
        with subprocess.Popen(
            [sys.executable, "-c", wait],
            pass_fds=[shared],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as other:
            assert other.stdout is not None
            other.stdout.readline()  # it has the pages now
            alone, both = memory.used([other.pid]), memory.used([os.getpid(), other.pid])
    os.close(shared)
    assert alone > 64 * MB
    assert both - before < 60 * MB  # an interpreter, but no second copy


def test_files_in_memory_count(tmp_path: Path) -> None:
    before = memory.used([], tmp_path)
    (tmp_path / "checkpoint").write_bytes(b"x" * MB)
    assert memory.used([], tmp_path) - before >= MB
