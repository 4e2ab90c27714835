"""The digits example as a TrainingJob under test: made, watched, harmed and judged."""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from typing import Any

import yaml
from kindcluster import ROOT, Cluster, Object, wait_for

LABEL = "headway.dev/job-name"
CHECKPOINT_STEPS = 10
HOROVOD_IMAGE = "headway-trainer-horovod:dev"
PHASES_AT_WORK = {"Pending", "Starting", "Running", "Restarting"}

# Runs in a worker pod. A rank is what the agent's descendants end in: the uploader is niced,
# and a zygote or shell has children. Prints the pid that it killed.
KILL_A_RANK = """
import os, signal
stats = {}
for pid in filter(str.isdigit, os.listdir("/proc")):
    try:
        fields = open(f"/proc/{pid}/stat").read().rsplit(")", 1)[1].split()
    except OSError:
        continue
    stats[int(pid)] = (int(fields[1]), int(fields[16]), fields[0])
def descends(pid):
    while pid in stats and pid != 1:
        pid = stats[pid][0]
    return pid == 1
parents = {parent for parent, _, _ in stats.values()}
ranks = [p for p, (parent, nice, state) in stats.items()
         if p != 1 and descends(p) and nice == 0 and state != "Z" and p not in parents]
deepest = max(ranks)
os.kill(deepest, signal.SIGKILL)
print(deepest)
"""


@dataclass(frozen=True)
class Job:
    """A TrainingJob of the digits example in a namespace of its own."""

    cluster: Cluster
    namespace: str
    name: str = "digits"

    def start(self, *, epochs: int = 12, step_delay_ms: int = 150, **changes: Any) -> None:
        """Apply examples/digits/job.yaml, made long enough to be harmed: 15 steps an epoch.

        `changes` are fields of the spec that differ from the example's; those of `pod` are added.
        """
        manifest = yaml.safe_load((ROOT / "examples/digits/job.yaml").read_text())
        manifest["metadata"] = {"name": self.name, "namespace": self.namespace}
        spec = manifest["spec"]
        spec["parameters"] |= {"epochs": str(epochs), "step_delay_ms": str(step_delay_ms)}
        spec["checkpoint"]["everySteps"] = CHECKPOINT_STEPS
        spec["pod"] = spec.get("pod", {}) | {
            "imagePullPolicy": "Never",
            "terminationGracePeriodSeconds": 20,
            "topologySpreadConstraints": [
                {
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": {LABEL: self.name}},
                }
            ],
        }
        spec["pod"] |= changes.pop("pod", {})
        spec |= changes
        self.cluster.apply(manifest)

    def patch(self, spec: Object) -> None:
        """Merge into the job's spec."""
        self.kubectl("patch", self.ref, "--type=merge", "--patch", json.dumps({"spec": spec}))

    def kubectl(self, *arguments: str) -> str:
        """kubectl in the job's namespace."""
        return self.cluster.kubectl("--namespace", self.namespace, *arguments)

    @property
    def ref(self) -> str:
        """The job as kubectl names it."""
        return f"trainingjob/{self.name}"

    # --- what is the case ----------------------------------------------------------------------

    def status(self) -> Object:
        """The job's status; empty before the operator's first write."""
        status: Object = self.cluster.get(self.ref, "--namespace", self.namespace).get("status", {})
        return status

    def value(self, path: str) -> Any:
        """A value in the status, by a dotted path; None where there is none."""
        value: Any = self.status()
        for key in path.split("."):
            value = (value or {}).get(key)
        return value

    def pods(self) -> dict[str, Object]:
        """The job's pods by name."""
        found = self.cluster.items(
            "pods", "--namespace", self.namespace, "--selector", f"{LABEL}={self.name}"
        )
        return {pod["metadata"]["name"]: pod for pod in found}

    def uids(self) -> dict[str, str]:
        """UIDs of the pods by name."""
        return {name: pod["metadata"]["uid"] for name, pod in self.pods().items()}

    def nodes(self) -> dict[str, str]:
        """Nodes of the pods by the pod's name."""
        return {name: pod["spec"].get("nodeName", "") for name, pod in self.pods().items()}

    # --- waiting -------------------------------------------------------------------------------

    def wait_for_phase(self, phase: str, seconds: float) -> Object:
        """Wait for a phase; a job that ends otherwise fails the test at once."""

        def reached() -> Object | None:
            status = self.status()
            ended = status.get("phase") in {"Succeeded", "Failed"}
            if ended and status["phase"] != phase:
                message = f"{status['phase']}: {status.get('reason')} {status.get('message')}"
                raise EndedEarly(message)
            return status if status.get("phase") == phase else None

        return wait_for(reached, seconds, f"{self.name} is {phase}")

    def wait_for_checkpoint(self, seconds: float = 120) -> int:
        """Wait until a checkpoint is committed and training goes on; its step."""
        self.wait_for_phase("Running", seconds)
        step: int = wait_for(
            lambda: self.value("checkpoint.step"), seconds, f"{self.name} has a checkpoint"
        )
        return step

    def wait_for_step(self, step: int, seconds: float = 60) -> None:
        """Wait until progress of a step is reported."""
        wait_for(lambda: (self.value("progress.step") or 0) >= step, seconds, f"step {step}")

    def wait_for_restart(self, seconds: float, total: int = 1) -> Object:
        """Wait until so many restarts are counted and all pods are at work again; the status."""

        def restarted() -> Object | None:
            status = self.status()
            workers = status.get("workers", {})
            back = workers.get("ready") == workers.get("desired")
            counted = status.get("restarts", {}).get("total", 0) >= total
            going = status.get("phase") in {"Running", "Succeeded"}
            return status if counted and going and back else None

        return wait_for(restarted, seconds, f"{self.name} has restarted {total} times")

    def wait_for_success(self, seconds: float = 240) -> Object:
        """Wait until the job has succeeded, and judge its result; the final status.

        All steps were done, and what was learned is good: a job that "recovers" by starting anew
        in silence, or with torn weights, does not get here with the right counts.
        """
        status = self.wait_for_phase("Succeeded", seconds)
        progress = status["progress"]
        assert progress["step"] == progress["totalSteps"] > 0, progress
        assert progress["percent"] == 100, progress
        assert float(progress["metrics"]["val_accuracy"]) >= 0.95, progress
        return status


class EndedEarly(Exception):  # noqa: N818 - waiting longer would be no use
    """The job ended in another phase than the one waited for."""


AT_ONCE = ("--grace-period=0", "--force")
GENTLY = ()


def lose_pod(job: Job, index: int, options: tuple[str, ...], total: int) -> None:
    """Delete a pod, and wait until training has gone on; `total` restarts are counted then."""
    job.wait_for_step(job.value("progress.step") + 1)  # what was lost before has been made good
    before, began = job.uids(), time.monotonic()
    lost, other = f"{job.name}-{index}", f"{job.name}-{1 - index}"
    job.kubectl("delete", "pod", lost, "--wait=false", *options)
    wait_for(lambda: job.uids().get(lost, before[lost]) != before[lost], 60, f"{lost} is new")
    restarts = job.wait_for_restart(60, total)["restarts"]
    print(f"{lost} {' '.join(options)}: ready after {time.monotonic() - began:.1f} s")
    assert restarts["total"] == total, restarts
    assert restarts["last"]["worker"] == index, restarts
    assert restarts["last"]["reason"] in {"PodDeleted", "Preempted"}, restarts
    assert job.uids()[other] == before[other], "the pod that was not harmed must stay"
