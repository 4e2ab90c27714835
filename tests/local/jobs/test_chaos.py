"""Random processes of a job are killed at random moments: workers, agents, zygotes, uploaders.

HEADWAY_CHAOS_KILLS and HEADWAY_CHAOS_SEED make it longer, or repeat it.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import psutil
import pytest
from hack.seaweed import SeaweedServer
from local_runs import Job, MakeJob, keys, storage
from test_recovery import STEPS, check_exact, expected, losses_job, undisturbed

__all__ = ["expected", "undisturbed"]  # fixtures
pytestmark = [pytest.mark.xdist_group("recovery"), pytest.mark.timeout(900)]
KILLS = int(os.environ.get("HEADWAY_CHAOS_KILLS", "6"))


def victims(run: Job) -> list[psutil.Process]:
    """Every process of the job's pods."""
    kubelet = run.process.pid if run.process else None
    return [p for p in run.processes() if p.pid != kubelet]


def test_no_kill_at_any_moment_changes_a_single_loss(
    job: MakeJob,
    tmp_path: Path,
    own_seaweed: SeaweedServer,
    expected: dict[int, dict[int, set[str]]],
) -> None:
    seed = int(os.environ.get("HEADWAY_CHAOS_SEED", str(random.randrange(10**6))))
    print(f"HEADWAY_CHAOS_SEED={seed}")
    chance = random.Random(seed)
    own_seaweed.make_bucket("headway")
    run = losses_job(job, tmp_path, delay_ms="120")
    run.manifest["spec"]["storage"] = storage(own_seaweed, "s3://headway/jobs")
    run.manifest["spec"]["checkpoint"] = {"everySteps": 5, "keepLast": 2}
    run.manifest["spec"]["failurePolicy"] = {"maxRestarts": 10 * KILLS}
    run.env |= keys(own_seaweed)
    run.start()
    killed = []
    for _ in range(KILLS):
        time.sleep(chance.uniform(1, 12))
        found = victims(run)
        if not found or run.process is None or run.process.poll() is not None:
            break
        one = chance.choice(found)
        try:
            killed.append(" ".join(one.cmdline()[1:4])[-60:])
            one.kill()
        except psutil.NoSuchProcess:
            continue
    print("killed:", killed)
    ended = run.finish(600)
    check_exact(ended, tmp_path, expected)
    assert ended.status["progress"]["step"] == STEPS
