"""FSDP2: what was saved by any number of ranks is what any other number restores."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from exact_runs import SECONDS, Trace, job
from local_runs import Job, wait_for

pytestmark = [pytest.mark.xdist_group("exactness"), pytest.mark.timeout(600)]
STEPS = 32


def test_a_sharded_state_is_restored_in_place_and_by_other_numbers_of_ranks(
    tmp_path: Path, jobs: list[Job]
) -> None:
    """FSDP on 2 ranks, one killed → DDP on 1 → HSDP on 4, one killed → FSDP on 3."""
    trace = Trace(tmp_path)

    def part(mode: str, ranks: int, until: int, kill_at: int = 0) -> None:
        run = job(tmp_path, "sharded.py", ranks=ranks, every=2, delay_ms="20", mode=mode)
        jobs.append(run.start())
        if kill_at:
            wait_for(f"step {kill_at}", lambda: trace.last_step >= kill_at, SECONDS)
            found = wait_for("a rank", lambda: run.worker(ranks - 1), 20)
            found.kill()
            wait_for("a restart", lambda: "from memory" in run.logs(0), SECONDS)
        if until < STEPS:
            wait_for(f"step {until}", lambda: trace.last_step >= until, SECONDS)
            run.signal(signal.SIGINT)
        ended = run.finish(SECONDS)
        assert ended.phase == ("Succeeded" if until == STEPS else "Suspended"), ended.shown
        for rank in range(ranks):
            check_restored(trace.of(rank))

    part("fsdp", ranks=2, until=8, kill_at=5)
    part("ddp", ranks=1, until=14)
    part("hsdp", ranks=4, until=22, kill_at=18)
    part("fsdp", ranks=3, until=STEPS)
    assert sorted(set(trace.steps())) == list(range(1, STEPS + 1))


def check_restored(found: dict[str, set[str]]) -> None:
    """What was restored is what was saved, and what was computed again came out the same."""
    for key, values in found.items():
        what, step = key.split()
        assert len(values) == 1, f"{key}: {values}"
        if what == "restored" and f"step {step}" in found:
            (computed,) = found[f"step {step}"]
            assert values == {computed.split()[1]}, key
