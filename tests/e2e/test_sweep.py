"""A Sweep in a cluster: trials pause at rungs, its operator dies, wrong ones are refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import yaml
from kindcluster import OPERATOR, ROOT, SYSTEM, Cluster, Object, wait_for

from headway_api import contract

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]
NAME = "digits-sweep"
RUNGS = (10, 30, 90)
TRIALS = 4


class Sweep:
    """The example's search, made short, in a namespace of its own."""

    def __init__(self, cluster: Cluster, namespace: str) -> None:
        self.cluster, self.namespace = cluster, namespace
        self.manifest: Object = yaml.safe_load((ROOT / "examples/sweep/sweep.yaml").read_text())
        self.manifest["metadata"] = {"name": NAME, "namespace": namespace}
        self.spec["maxTrials"] = TRIALS
        self.spec["stopping"] = {"asha": {"minSteps": RUNGS[0], "maxSteps": RUNGS[-1]}}
        self.spec["template"]["spec"]["parameters"]["epochs"] = "9"
        self.spec["template"]["spec"]["pod"]["imagePullPolicy"] = "Never"

    @property
    def spec(self) -> Object:
        """Its spec, to change before it is applied."""
        spec: Object = self.manifest["spec"]
        return spec

    def apply(self) -> None:
        """Create it, or change it."""
        self.cluster.apply(self.manifest)

    def kubectl(self, *arguments: str) -> str:
        """kubectl in its namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    def status(self) -> Object:
        """Its status; empty before the operator's first write."""
        found: Object = self.cluster.get("sweep", NAME, "--namespace", self.namespace)
        status: Object = found.get("status", {})
        return status

    def jobs(self) -> list[Object]:
        """Its trials' TrainingJobs, by index."""
        selector = ("--selector", f"{contract.LABEL_SWEEP}={NAME}")
        found = self.cluster.items("trainingjobs", "--namespace", self.namespace, *selector)
        return sorted(found, key=index_of)

    def wait_for_success(self, seconds: float) -> Object:
        """Wait for its end; the final status."""

        def over() -> Object | None:
            status = self.status()
            return status if status.get("phase") in {"Succeeded", "Failed"} else None

        status = wait_for(over, seconds, "the sweep is over")
        assert status["phase"] == "Succeeded", status["message"]
        return status


def index_of(job: Object) -> int:
    """A trial's number."""
    return int(job["metadata"]["labels"][contract.LABEL_TRIAL])


def step_of(job: Object) -> int:
    """Steps that a trial has done."""
    return int(job.get("status", {}).get("progress", {}).get("step", 0))


def stalled(status: Object) -> str:
    """What a sweep's Stalled condition says; empty while it is not true."""
    conditions = {c["type"]: c for c in status.get("conditions", ())}
    found = conditions.get("Stalled", {})
    return found["message"] if found.get("status") == "True" else ""


@pytest.fixture
def sweep(cluster: Cluster, namespace: str) -> Iterator[Sweep]:
    """A Sweep that is not there yet. At the end it is deleted, and its trials go with it."""
    cluster.wait_for_operator()
    sweep = Sweep(cluster, namespace)
    yield sweep
    sweep.kubectl("delete", "sweep", NAME, "--ignore-not-found", "--timeout=60s")
    wait_for(lambda: not sweep.jobs(), 90, "the trials are gone")


def test_trials_pause_at_rungs_and_go_on_and_a_deleted_operator_changes_nothing(
    sweep: Sweep,
) -> None:
    sweep.apply()
    wait_for(lambda: any(step_of(job) >= RUNGS[0] for job in sweep.jobs()), 180, "a rung")
    before = {index_of(job): chosen(job) for job in sweep.jobs()}
    gone = sweep.cluster.kubectl(
        *("delete", "pods", "--namespace", SYSTEM, "--wait=false"),
        *("--selector", f"app.kubernetes.io/name={OPERATOR}"),
        *("--grace-period=0", "--force"),
    )
    assert f'pod "{OPERATOR}' in gone
    status = sweep.wait_for_success(300)
    jobs = {index_of(job): job for job in sweep.jobs()}
    assert sorted(jobs) == list(range(TRIALS))
    assert {index: chosen(jobs[index]) for index in before} == before
    assert all(step_of(job) in RUNGS for job in jobs.values())
    went_on = [job for job in jobs.values() if step_of(job) > RUNGS[0]]
    assert went_on
    for job in went_on:
        assert job["status"]["checkpoint"]["resumedFromStep"] in RUNGS[:-1]
        assert job["status"].get("restarts", {}).get("total", 0) == 0
    assert status["counts"]["created"] == TRIALS
    assert status["counts"]["complete"] + status["counts"]["stopped"] == TRIALS
    check_columns(sweep, status)


def chosen(job: Object) -> Any:
    """What a trial's record says."""
    return json.loads(job["metadata"]["annotations"][contract.ANNOTATION_TRIAL])


def check_columns(sweep: Sweep, status: Object) -> None:
    """`kubectl get` says it all in a line."""
    header, line = sweep.kubectl("get", "sweeps").splitlines()
    assert header.split() == ["NAME", "PHASE", "ENDED", "RUNNING", "FAILED", "BEST", "TRIAL", "AGE"]
    best = status["best"]
    shown = [NAME, "Succeeded", f"{TRIALS}/{TRIALS}", "0", "0", best["values"][0]]
    assert line.split()[:-1] == [*shown, str(best["index"])]


def test_a_wrong_space_is_refused_by_the_api_server_with_a_sentence(sweep: Sweep) -> None:
    sweep.spec["parameters"][0]["float"] = {"min": 1, "max": 0.1}
    with pytest.raises(AssertionError, match="min must not be larger than max"):
        sweep.apply()


@pytest.mark.parametrize("wrong", ["space", "template"])
def test_what_only_the_operator_can_see_stalls_with_a_sentence_until_it_is_mended(
    sweep: Sweep, wrong: str
) -> None:
    if wrong == "space":
        sweep.spec["parameters"][2]["choice"] = [8, 8]
        said = "has the choice 8 twice: remove one"
    else:
        sweep.spec["template"]["spec"]["workers"]["replicas"] = "${params.wdith}"
        said = "parameters has no wdith: add it"
    sweep.apply()
    wait_for(lambda: said in stalled(sweep.status()), 30, "it is stalled")
    assert not sweep.jobs()
    if wrong == "template":
        sweep.spec["template"]["spec"]["workers"]["replicas"] = 1
        sweep.apply()
        wait_for(lambda: sweep.jobs() and not stalled(sweep.status()), 30, "it goes on")
