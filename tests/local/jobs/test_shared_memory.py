"""A container of plain Docker: 64 MB of /dev/shm."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest
from local_runs import MakeJob, script

MOUNT = 'mount -t tmpfs -o size=64m tmpfs /dev/shm && exec "$@"'
SMALL_SHM = ["unshare", "--mount", "sh", "-c", MOUNT, "sh"]
pytestmark = pytest.mark.skipif(
    subprocess.run([*SMALL_SHM, "true"], check=False, capture_output=True).returncode != 0,
    reason="mounting a small /dev/shm needs root and unshare",
)


def test_checkpoints_do_not_need_it(job: MakeJob, tmp_path: Path) -> None:
    run = job(
        script("losses.py"),
        replicas=1,
        env={"LOSSES": str(tmp_path / "losses")},
        storage={"uri": str(tmp_path / "storage")},
        checkpoint={"everySteps": 5},
        parameters={"epochs": "1", "ballast_mb": "100"},
    )
    run.prefix = SMALL_SHM
    ended = run.run(seconds=240)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == 10


def test_a_loader_that_fills_it_is_told_what_to_raise(job: MakeJob) -> None:
    run = job(script("loader.py"), replicas=1, failurePolicy={"maxRestarts": 0})
    run.prefix = SMALL_SHM
    ended = run.run(seconds=240)
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "/dev/shm has 64 MiB" in ended.status["message"]
    assert "spec.pod.sharedMemory" in ended.status["message"]
