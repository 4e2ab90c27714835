"""Storage that refuses, that is missing, and that goes away in the middle."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
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

    def steps() -> int:
        return len(losses.read_text().splitlines()) if losses.exists() else 0

    wait_for("step 25", lambda: steps() >= 25, 240)
    own_seaweed.stop()
    wait_for("60 more steps", lambda: steps() >= 85, 120)
    own_seaweed.start()
    ended = run.finish(240)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert ended.status["checkpoint"]["step"] == ended.status["progress"]["step"] == 200
    assert not ended.restarts.get("total")
    assert len(losses.read_text().splitlines()) == 200  # no step was done twice
