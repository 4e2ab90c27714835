"""Processes are killed at the very moment of a save, an upload, a commit, a deletion, a restore.

Moments of storage are requests that a proxy in front of the S3 server sees; that of a save is a
slot whose seal is broken.
"""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from hack import fault_proxy as faults
from hack.fault_proxy import FaultProxy
from hack.seaweed import SeaweedServer
from local_runs import Job, MakeJob, keys, last_step, storage, wait_for
from test_recovery import (
    SECONDS,
    STEPS,
    check_exact,
    expected,
    losses_job,
    made,
    undisturbed,
)

__all__ = ["expected", "undisturbed"]  # fixtures
pytestmark = [pytest.mark.xdist_group("recovery"), pytest.mark.timeout(900)]
Victims = Callable[[Job], list[psutil.Process | None]]


@pytest.fixture
def proxy(own_seaweed: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(own_seaweed.endpoint) as proxy:
        yield proxy


def both_agents(run: Job) -> list[psutil.Process | None]:
    return [run.agent(0), run.agent(1)]


def lead(run: Job) -> list[psutil.Process | None]:
    return [run.agent(0)]


def rank_one(run: Job) -> list[psutil.Process | None]:
    return [run.worker(1)]


def uploaders(run: Job) -> list[psutil.Process | None]:
    return [p for p in run.processes() if "headway.agent.uploader" in " ".join(p.cmdline())]


MOMENTS: dict[str, tuple[str, str, bool, Victims]] = {
    "a part is about to be sent": ("PUT", "/part-", False, uploaders),
    "a part has been sent": ("PUT", "/part-", True, rank_one),
    "the commit is about to be written": ("PUT", "/COMMIT.json", False, lead),
    "the commit has been written": ("PUT", "/COMMIT.json", True, lead),
    "an old checkpoint is about to be deleted": ("POST", "delete", False, lead),
    "part of an old checkpoint has been deleted": ("POST", "delete", True, both_agents),
    "a part is being read": ("GET", "/part-", True, rank_one),
}


def kill(victims: list[psutil.Process | None]) -> None:
    for victim in victims:
        with contextlib.suppress(psutil.NoSuchProcess):
            if victim is not None:
                victim.kill()


def test_a_kill_at_any_moment_of_a_checkpoint_in_storage_changes_no_loss(
    job: MakeJob,
    tmp_path: Path,
    own_seaweed: SeaweedServer,
    proxy: FaultProxy,
    expected: dict[int, dict[int, set[str]]],
) -> None:
    own_seaweed.make_bucket("headway")
    run = losses_job(job, tmp_path, delay_ms="100")
    spec = run.manifest["spec"]
    spec["storage"] = {**storage(own_seaweed, "s3://headway/jobs"), "endpoint": proxy.endpoint}
    spec["checkpoint"] = {"everySteps": 3, "keepLast": 2}
    spec["failurePolicy"] = {"maxRestarts": 30}
    run.env |= keys(own_seaweed)
    run.start()
    for what, (method, path, heard, victims) in MOMENTS.items():
        before = last_step(tmp_path)
        if method == "GET":
            kill(both_agents(run))  # with both pods' memory gone, storage is read
        rule = proxy.fail(
            faults.then(lambda v=victims: kill(v(run)), heard=heard),  # type: ignore[misc]
            method=method,
            path=path,
            times=1,
        )
        wait_for(what, lambda r=rule: r.hits, SECONDS)  # type: ignore[misc]
        wait_for(f"steps after {what}", lambda b=before: last_step(tmp_path) > b + 3, SECONDS)  # type: ignore[misc]
    assert last_step(tmp_path) < STEPS, "the job was over too early to be killed"
    check_exact(run.finish(SECONDS), tmp_path, expected)


def slots(agent: psutil.Process) -> list[str]:
    """Paths of the slots that an agent holds."""
    files = Path(f"/proc/{agent.pid}/fd").iterdir()
    return [str(file) for file in files if str(file.readlink()).startswith("/memfd:")]


def is_being_written(path: str) -> bool:
    """Whether a slot has held a checkpoint, and its seal is broken now."""
    with contextlib.suppress(OSError), Path(path).open("rb") as file:
        magic, sealed = struct.unpack("<8sQ", file.read(16))
        return bool(magic == b"headway1" and not sealed)
    return False


def test_a_kill_in_the_middle_of_a_save_changes_no_loss(
    job: MakeJob, tmp_path: Path, expected: dict[int, dict[int, set[str]]]
) -> None:
    run = losses_job(job, tmp_path, delay_ms="50", ballast_mb="150")
    run.manifest["spec"]["checkpoint"] = {"everySteps": 3, "keepLast": 1}
    run.start()
    wait_for("step 10", lambda: last_step(tmp_path) >= 10, SECONDS)
    agent, rank = run.agent(1), run.worker(1)
    assert agent is not None
    assert rank is not None
    held = slots(agent)
    assert held, "worker 1 has no slots"
    caught = None
    while caught is None and last_step(tmp_path) < STEPS - 20:
        caught = next((path for path in held if is_being_written(path)), None)
    assert caught is not None, "no save was seen"
    rank.kill()
    rank.wait()
    assert is_being_written(caught), "the save was over before the kill"
    ended = run.finish(SECONDS)
    check_exact(ended, tmp_path, expected)
    assert ended.restarts["total"] == 1
    assert made(run, 1) == 1  # in place, from the other slot
