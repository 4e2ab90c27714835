"""The command itself: manifests good and bad, options, and what goes to which stream."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from local_runs import MakeJob, python, wait_for

NOTHING = python("print('hello from the job')")


def headway_run(*arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "headway.cli", "run", *arguments]
    return subprocess.run(
        command, input=stdin, capture_output=True, text=True, timeout=100, check=False
    )


JOB = """
apiVersion: headway.dev/v1alpha1
kind: TrainingJob
metadata: {name: wrong}
spec: {command: [python, train.py], workers: {replicas: 1}}
"""


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "TrainingJob"),
        ("{", "YAML"),
        ("kind: Pod\napiVersion: v1\nmetadata: {name: x}\n", "TrainingJob"),
        (JOB.replace("replicas: 1", "replicas: 0"), "spec.workers.replicas"),
        (JOB.replace("command: [python, train.py], ", ""), "command"),
        (JOB.replace("command:", "comand:"), "comand"),
        (JOB.replace("spec: {", "spec: {framework: Caffe, "), "framework"),
        (JOB.replace("name: wrong", "name: " + "x" * 70), "name"),
        (JOB.replace("name: wrong", "name: Not_A_Name"), "name"),
        (JOB.replace("name: wrong", "labels: {a: b}"), "name"),
        (JOB + "---" + JOB.replace("wrong", "second"), "2 TrainingJobs"),
        (JOB.replace("v1alpha1", "v9"), "v9"),
        (
            JOB.replace("replicas: 1", "replicas: 1, resources: {limits: {memory: 2Gig}}"),
            "memory",
        ),
    ],
)
def test_a_wrong_manifest_is_refused_with_the_reason(tmp_path: Path, text: str, says: str) -> None:
    ended = headway_run("-f", "-", "--state", str(tmp_path / "state"), stdin=text)
    assert ended.returncode == 2, ended.stderr
    assert says in ended.stderr
    assert "Traceback" not in ended.stderr
    assert ended.stdout == ""


def test_a_manifest_for_a_gpu_pool_runs_here_too(job: MakeJob) -> None:
    ended = job(NOTHING, replicas=1, gpu={"pool": "a100", "count": 8}).run()
    assert (ended.code, ended.phase) == (0, "Succeeded")
    assert "spec.gpu has no meaning here" in ended.shown


def test_a_manifest_for_a_queue_runs_here_too(job: MakeJob) -> None:
    ended = job(NOTHING, replicas=1, scheduling={"queueName": "q"}).run()
    assert (ended.code, ended.phase) == (0, "Succeeded")
    assert "queueName has no meaning here" in ended.shown


def test_what_is_not_supported_yet_is_said_and_not_left_out(job: MakeJob) -> None:
    ended = job(NOTHING, replicas=1, model={"name": "m"}, storage={"uri": "/unused"}).run()
    assert ended.code == 1
    assert "spec.model" in ended.status["message"]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    ended = headway_run("-f", str(tmp_path / "none.yaml"))
    assert ended.returncode == 2
    assert "none.yaml" in ended.stderr


def test_a_runtime_that_is_not_there_ends_with_what_to_do(job: MakeJob) -> None:
    run = job(NOTHING, runtimeRef={"name": "nowhere"})
    ended = run.run()
    assert ended.code == 1
    assert "nowhere" in ended.status["message"]


def test_a_runtime_in_the_same_file_is_merged_under_the_job(job: MakeJob) -> None:
    run = job(python("import os; print('greeting', os.environ['GREETING'])"))
    runtime = {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "TrainingRuntime",
        "metadata": {"name": "ours"},
        "spec": {"pod": {"env": [{"name": "GREETING", "value": "salve"}]}},
    }
    run.manifest["spec"]["runtimeRef"] = {"kind": "TrainingRuntime", "name": "ours"}
    run.others.append(runtime)
    ended = run.run()
    assert (ended.code, ended.phase) == (0, "Succeeded"), ended.shown
    assert "greeting salve" in run.logs(0)


def test_streams_the_object_on_stdout_and_everything_else_on_stderr(job: MakeJob) -> None:
    ended = job(NOTHING, replicas=1).run()
    assert ended.job["kind"] == "TrainingJob"  # stdout was one JSON object and nothing else
    assert ended.phase == "Succeeded"
    assert "hello from the job" in ended.shown


def test_parameters_reach_the_command_and_the_environment(job: MakeJob) -> None:
    run = job(
        ["python", "-c", "import os, sys; print(sys.argv[1:], os.environ['HEADWAY_PARAM_LR'])"],
        replicas=1,
        parameters={"lr": "0.1"},
    )
    run.manifest["spec"]["command"] += ["--lr=${params.lr}"]
    assert run.run("--param", "lr=0.5").phase == "Succeeded"
    assert "['--lr=0.5'] 0.5" in run.logs(0)


def test_a_finished_job_is_not_run_again(job: MakeJob, tmp_path: Path) -> None:
    count = tmp_path / "count"
    run = job(python(f"open({str(count)!r}, 'a').write('x')"), replicas=1)
    assert run.run().phase == "Succeeded"
    again = run.run()
    assert (again.code, again.phase) == (0, "Succeeded")
    assert count.read_text() == "x"
    assert "--state" in again.shown  # it says why nothing happened and what to do


def test_two_runs_cannot_share_a_folder(job: MakeJob) -> None:
    run = job(python("import time; time.sleep(100)"), replicas=1)
    run.start()
    state = str(run.folder / "state")
    wait_for("the folder", (run.folder / "state" / "lock").exists)
    text = yaml.safe_dump(run.manifest)
    second = headway_run("-f", "-", "--state", state, stdin=text)
    assert second.returncode == 2
    assert "another `headway run`" in second.stderr
    run.end()


def test_a_second_job_may_use_the_folder_of_a_finished_one(job: MakeJob) -> None:
    run = job(NOTHING, replicas=1)
    assert run.run().phase == "Succeeded"
    run.manifest["metadata"]["name"] = "u"
    assert run.run().phase == "Succeeded"


def test_help_has_examples() -> None:
    ended = headway_run("--help")
    assert ended.returncode == 0
    assert "headway run -f job.yaml" in ended.stdout
