"""Storage that refuses, that is missing, and that goes away in the middle."""

from __future__ import annotations

import contextlib
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest
from hack import fault_proxy as faults
from hack.fault_proxy import FaultProxy
from hack.seaweed import SeaweedServer
from local_runs import MakeJob, keys, python, script, storage, wait_for

NOTHING = python("print('trained')")


def test_a_bucket_that_does_not_exist_fails_the_job_and_names_it(
    job: MakeJob, seaweed: SeaweedServer
) -> None:
    run = job(NOTHING, env=keys(seaweed), storage=storage(seaweed, "s3://no-such-bucket/jobs"))
    ended = run.run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "no-such-bucket" in ended.status["message"]
    assert not ended.restarts.get("counted")
    assert "trained" not in run.logs(0)


@pytest.mark.parametrize(
    "wrong", [{"AWS_SECRET_ACCESS_KEY": "wrong"}, {"AWS_ACCESS_KEY_ID": "nobody"}]
)
def test_wrong_credentials_fail_the_job_and_say_so(
    job: MakeJob, seaweed: SeaweedServer, wrong: Mapping[str, str]
) -> None:
    seaweed.make_bucket("headway")
    env = keys(seaweed, **wrong)
    ended = job(NOTHING, env=env, storage=storage(seaweed, "s3://headway/jobs")).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert "s3://headway" in ended.status["message"]
    assert "AWS_SECRET_ACCESS_KEY" in ended.status["message"]


def test_a_storage_folder_that_cannot_be_written_fails_the_job(
    job: MakeJob, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("not a folder")
    ended = job(NOTHING, storage={"uri": str(tmp_path / "file" / "jobs")}).run()
    assert (ended.code, ended.phase) == (1, "Failed")
    assert str(tmp_path / "file") in ended.status["message"]


def steps_of(losses: Path) -> int:
    return len(losses.read_text().splitlines()) if losses.exists() else 0


def test_training_goes_on_while_the_s3_server_is_away(
    job: MakeJob, tmp_path: Path, own_seaweed: SeaweedServer
) -> None:
    """Steps go on without storage, nothing restarts, and the last checkpoint is there."""
    own_seaweed.make_bucket("headway")
    losses = tmp_path / "losses.0"
    run = job(
        script("losses.py"),
        replicas=1,
        env=keys(own_seaweed, LOSSES=str(tmp_path / "losses")),
        storage=storage(own_seaweed, "s3://headway/jobs"),
        checkpoint={"everySteps": 10},
        parameters={"epochs": "20", "delay_ms": "30"},
    ).start()

    wait_for("step 25", lambda: steps_of(losses) >= 25, 240)
    own_seaweed.stop()
    wait_for("60 more steps", lambda: steps_of(losses) >= 85, 120)
    own_seaweed.start()
    ended = run.finish(240)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == ended.status["progress"]["step"] == 200
    assert not ended.restarts.get("total")
    assert len(losses.read_text().splitlines()) == 200  # no step was done twice


@pytest.fixture
def proxy(seaweed: SeaweedServer) -> Iterator[FaultProxy]:
    with FaultProxy(seaweed.endpoint) as proxy:
        yield proxy


def test_credentials_that_are_refused_in_the_middle_stop_no_training(
    job: MakeJob, tmp_path: Path, seaweed: SeaweedServer, proxy: FaultProxy
) -> None:
    """Checkpoints fail with the reason, steps go on, and later checkpoints are there again."""
    losses = tmp_path / "losses.0"
    run = job(
        script("losses.py"),
        replicas=1,
        env=keys(seaweed, LOSSES=str(tmp_path / "losses")),
        storage={
            **storage(seaweed, f"{seaweed.make_bucket('refused')}/jobs"),
            "endpoint": proxy.endpoint,
        },
        checkpoint={"everySteps": 10},
        parameters={"epochs": "12", "delay_ms": "30"},
    ).start()
    wait_for("step 25", lambda: steps_of(losses) >= 25, 240)
    rule = proxy.fail(faults.answer(403, "InvalidAccessKeyId"))
    wait_for("40 more steps", lambda: steps_of(losses) >= 65, 120)
    proxy.heal()
    ended = run.finish(240)
    assert rule.hits, "the fault did not happen"
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == ended.status["progress"]["step"] == 120
    assert not ended.restarts.get("total")
    assert "InvalidAccessKeyId" in run.logs(0)
    assert len(losses.read_text().splitlines()) == 120


def test_a_run_whose_last_checkpoint_is_refused_fails_and_says_why(
    job: MakeJob, tmp_path: Path, seaweed: SeaweedServer, proxy: FaultProxy
) -> None:
    """It never ends as if that checkpoint was there, not even by its restarts from memory."""
    losses = tmp_path / "losses.0"
    run = job(
        script("losses.py"),
        replicas=1,
        env=keys(seaweed, LOSSES=str(tmp_path / "losses")),
        storage={
            **storage(seaweed, f"{seaweed.make_bucket('last')}/jobs"),
            "endpoint": proxy.endpoint,
        },
        checkpoint={"everySteps": 10},
        parameters={"epochs": "4", "delay_ms": "30"},
        failurePolicy={"maxRestarts": 1},
    ).start()
    wait_for("step 25", lambda: steps_of(losses) >= 25, 240)
    proxy.fail(faults.answer(403, "InvalidAccessKeyId"), method="PUT")
    ended = run.finish(240)
    assert (ended.code, ended.phase) == (1, "Failed"), ended.shown
    assert "InvalidAccessKeyId" in ended.status["message"]
    assert ended.status["checkpoint"]["step"] in {10, 20}  # what was committed is still there
    assert steps_of(losses) == 40  # the restart began from memory, after the last step


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("mounting a small tmpfs needs root")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def fill(folder: Path) -> Path:
    """Take all the room there is; returns the file that has it."""
    file = folder / "full"
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as out:
        while True:
            out.write(bytes(4096))
    return file


def test_a_disk_that_is_full_stops_no_training_and_is_named(
    job: MakeJob, tmp_path: Path, small_disk: Path
) -> None:
    losses = tmp_path / "losses.0"
    run = job(
        script("losses.py"),
        replicas=1,
        env={"LOSSES": str(tmp_path / "losses")},
        storage={"uri": str(small_disk / "jobs")},
        checkpoint={"everySteps": 10},
        parameters={"epochs": "12", "delay_ms": "30"},
    ).start()
    wait_for("step 25", lambda: steps_of(losses) >= 25, 240)
    full = fill(small_disk)
    wait_for("40 more steps", lambda: steps_of(losses) >= 65, 120)
    wait_for("a word about it", lambda: "No space left" in run.logs(0), 60)
    full.unlink()
    ended = run.finish(240)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == ended.status["progress"]["step"] == 120
    assert not ended.restarts.get("total")
