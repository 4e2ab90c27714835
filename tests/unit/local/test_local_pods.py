"""What a pod's spec means on this machine, and what a person sees of a job."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from headway_api import contract
from headway_operator.local.display import eta, headline, render
from headway_operator.local.logs import LogFollower
from headway_operator.local.podspec import process, quantity


@pytest.mark.parametrize(
    ("text", "size"),
    [("512Mi", 512 << 20), ("1.5Gi", 3 << 29), ("2G", 2 * 10**9), (100, 100), ("1e9", 10**9)],
)
def test_memory_quantities(text: str | int, size: int) -> None:
    assert quantity(text) == size


def test_a_quantity_that_is_none_is_refused() -> None:
    with pytest.raises(ValueError, match="2Gig"):
        quantity("2Gig")


def pod(**container: Any) -> dict[str, Any]:
    return {
        "metadata": {"name": "t-0", "uid": "u1", "namespace": "ns", "annotations": {"a/b": "c"}},
        "spec": {"containers": [{"name": "trainer", **container}]},
    }


def run_of(spec: dict[str, Any], folder: Path, **secrets: dict[str, str]) -> Any:
    def issue(audience: str, _seconds: int) -> str:
        return f"token for {audience}"

    return process(spec, folder, "127.88.0.1", issue, secrets.get)


def test_variables_come_from_where_they_say(tmp_path: Path) -> None:
    env = [
        {"name": "PLAIN", "value": "x"},
        {"name": "COMPOSED", "value": "$(PLAIN)-$(UNKNOWN)"},
        {"name": "UID", "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}}},
        {"name": "IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "NOTE", "valueFrom": {"fieldRef": {"fieldPath": "metadata.annotations['a/b']"}}},
        {"name": "KEY", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "k"}}},
        {"name": "NONE", "valueFrom": {"secretKeyRef": {"name": "s3", "key": "missing"}}},
    ]
    spec = pod(env=env, envFrom=[{"secretRef": {"name": "s3"}}], args=["python", "x.py"])
    plan = run_of(spec, tmp_path, s3={"k": "v", "AWS_REGION": "r"})
    said = {k: plan.env.get(k) for k in ("PLAIN", "COMPOSED", "UID", "IP", "NOTE", "KEY", "NONE")}
    assert list(said.values()) == ["x", "x-$(UNKNOWN)", "u1", "127.88.0.1", "c", "v", None]
    assert plan.env["AWS_REGION"] == "r"
    assert plan.command[-2:] == ("python", "x.py")


def test_tokens_are_files_and_variables_point_to_them(tmp_path: Path) -> None:
    place = str(Path(contract.TOKEN_FILE).parent)
    spec = pod(
        env=[{"name": contract.ENV_TOKEN_FILE, "value": contract.TOKEN_FILE}],
        volumeMounts=[{"name": "token", "mountPath": place}],
    )
    source = {"serviceAccountToken": {"audience": "us", "path": Path(contract.TOKEN_FILE).name}}
    spec["spec"]["volumes"] = [{"name": "token", "projected": {"sources": [source]}}]
    plan = run_of(spec, tmp_path)
    assert Path(plan.env[contract.ENV_TOKEN_FILE]).read_text() == "token for us"


def test_a_users_own_path_below_tmp_means_this_machines(tmp_path: Path) -> None:
    spec = pod(
        env=[{"name": "DATA", "value": "/tmp/data"}],
        volumeMounts=[{"name": "tmp", "mountPath": "/tmp"}],
    )
    spec["spec"]["volumes"] = [{"name": "tmp", "emptyDir": {}}]
    assert run_of(spec, tmp_path).env["DATA"] == "/tmp/data"


JOB = {
    "metadata": {"name": "digits"},
    "status": {
        "phase": "Running",
        "ready": "2/2",
        "progress": {"step": 120, "totalSteps": 300, "etaSeconds": 95, "metrics": {"loss": "0.5"}},
        "checkpoint": {"step": 100},
        "restarts": {"total": 1, "last": {"message": "rank 1 was killed\nmore"}},
    },
}


def shown(job: dict[str, Any]) -> str:
    console = Console(width=100, record=True, file=io.StringIO())
    console.print(render(job))
    return console.export_text()


def test_a_person_sees_where_the_job_is() -> None:
    text = shown(JOB)
    for part in ("digits", "Running", "2/2 ready", "step 120 of 300", "1 min left", "loss 0.5"):
        assert part in text
    assert "checkpoint at step 100" in text
    assert "1 restart, the last: rank 1 was killed" in text
    assert "more" not in text


def test_a_job_of_which_nothing_is_known_yet() -> None:
    assert headline({"metadata": {"name": "j"}}).plain == "j  Pending"
    assert "j" in shown({"metadata": {"name": "j"}})


@pytest.mark.parametrize(
    ("seconds", "text"), [(5, "5 s"), (89, "89 s"), (600, "10 min"), (7500, "2 h 5 min")]
)
def test_times_are_said_as_people_do(seconds: int, text: str) -> None:
    assert eta(seconds) == text


def test_logs_are_followed_from_where_this_run_began(tmp_path: Path) -> None:
    old = tmp_path / "t-0" / "u1" / "log"
    old.parent.mkdir(parents=True)
    old.write_text("history\n")
    lines: list[str] = []
    follower = LogFollower(tmp_path, lines.append, None)
    with old.open("a") as file:
        file.write("new\nhalf")
    follower.poll()
    assert lines == ["t-0 | new"]
    with old.open("a") as file:
        file.write(" a line\n")
    other = tmp_path / "t-1" / "u2" / "log"
    other.parent.mkdir(parents=True)
    other.write_bytes(b"\xff\n")
    follower.poll()
    assert lines[1:] == ["t-0 | half a line", "t-1 | \ufffd"]
