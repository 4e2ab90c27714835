"""Workers that make no progress are found, show what they were at, and are restarted."""

from __future__ import annotations

from pathlib import Path

import pytest
from local_runs import MakeJob, script

pytestmark = pytest.mark.timeout(400)


def test_a_group_that_hangs_shows_its_stacks_and_goes_on(job: MakeJob, tmp_path: Path) -> None:
    run = job(
        script("hangs.py"),
        storage={"uri": str(tmp_path / "storage")},
        checkpoint={"everySteps": 10},
        failurePolicy={"maxRestarts": 1, "progressDeadlineSeconds": 10},
    )
    ended = run.run(seconds=300)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.restarts["total"] == ended.restarts["counted"] == 1
    assert ended.restarts["last"]["reason"] == "Hung"
    assert "no step for 10 s" in ended.restarts["last"]["message"]
    assert ended.status["checkpoint"]["resumedFromStep"] >= 20
    assert "in wait_for_something_that_never_comes" in run.logs(1)
    assert "backward" in run.logs(0) or "allreduce" in run.logs(0)
