"""`spec.horovod` as real ranks of Horovod see it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from local_runs import Job, MakeJob, needs_horovod, script, wait_for

pytestmark = [
    pytest.mark.xdist_group("horovod"),
    pytest.mark.timeout(300),
    needs_horovod,
]
SECONDS = 200


def stalling(job: MakeJob, away: int, **check: Any) -> Job:
    return job(
        script("horovod_stall.py"),
        replicas=3,
        env={"AWAY_SECONDS": str(away)},
        framework="Horovod",
        horovod={"stallCheck": check},
        failurePolicy={"maxRestarts": 0},
    )


def stepping(job: MakeJob, folder: Path, **settings: Any) -> Job:
    return job(
        script("horovod_steps.py"),
        env={"ENOUGH": str(folder / "enough")},
        framework="Horovod",
        storage={"uri": str(folder / "storage")},
        horovod=settings,
    )


def kept(folder: Path, name: str) -> Path | None:
    return next((folder / "storage").glob(f"*/horovod/{name}"), None)


def events(folder: Path, name: str) -> list[dict[str, Any]]:
    file = kept(folder, name)
    assert file is not None
    found: list[dict[str, Any]] = json.loads(file.read_text())
    return found


def test_the_log_names_the_rank_that_others_wait_for(job: MakeJob) -> None:
    run = stalling(job, 5, warnAfterSeconds=1)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    log = run.logs(0)
    assert "Missing ranks:\n2: [allreduce.second]" in log
    assert "rank 0 is through" in log


def test_a_stall_that_ends_the_group_says_whom_it_waited_for(job: MakeJob) -> None:
    ended = stalling(job, 1000, warnAfterSeconds=1, abortAfterSeconds=2).run(seconds=SECONDS)
    assert (ended.code, ended.phase) == (1, "Failed")
    message = ended.status["message"]
    assert "the others waited for rank 2 for more than 2 s" in message, message


def test_settings_reach_horovod_and_its_files_reach_storage(job: MakeJob, tmp_path: Path) -> None:
    run = stepping(
        job,
        tmp_path,
        fusion={"thresholdBytes": 1048576, "cycleTimeMilliseconds": "3.5"},
        autotune={"warmupSamples": 1, "stepsPerSample": 2, "maxSamples": 2, "log": True},
        timeline={"markCycles": True},
        timeoutSeconds=60,
    )
    run.manifest["spec"]["pod"] = {"env": [{"name": "HOROVOD_CYCLE_TIME", "value": "2"}]}
    run.start()
    wait_for("some steps", lambda: "at step 20" in run.logs(0), SECONDS)
    (tmp_path / "enough").touch()
    ended = run.finish(SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    for told in (
        "FUSION_THRESHOLD=1048576",
        "CYCLE_TIME=2",
        "AUTOTUNE=1",
        "AUTOTUNE_WARMUP_SAMPLES=1",
        "AUTOTUNE_STEPS_PER_SAMPLE=2",
        "AUTOTUNE_BAYES_OPT_MAX_SAMPLES=2",
        "GLOO_TIMEOUT_SECONDS=60",
    ):
        assert f"HOROVOD_{told}\n" in run.logs(0)
    names = {event.get("name") for event in events(tmp_path, "timeline-g1.json")}
    assert {"ALLREDUCE", "GLOO_ALLREDUCE", "CYCLE_START"} <= names
    table = kept(tmp_path, "autotune-g1.csv")
    assert table is not None
    assert table.read_text().startswith("hierarchical_allreduce,")


def test_the_timeline_of_a_killed_rank_is_valid_and_the_next_has_its_own(
    job: MakeJob, tmp_path: Path
) -> None:
    run = stepping(job, tmp_path, timeline={}).start()
    wait_for("some steps", lambda: "at step 20" in run.logs(0), SECONDS)
    victim = run.worker(0)
    assert victim is not None
    victim.kill()
    wait_for("more steps", lambda: run.logs(0).count("at step 20") == 2, SECONDS)
    wait_for("the timeline", lambda: kept(tmp_path, "timeline-g1.json"), SECONDS)
    (tmp_path / "enough").touch()
    ended = run.finish(SECONDS)
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    for name in ("timeline-g1.json", "timeline-g2.json"):
        reduced = [e for e in events(tmp_path, name) if e.get("name") == "ALLREDUCE"]
        assert len(reduced) >= 20
