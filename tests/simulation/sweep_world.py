"""A sweep's surroundings: TrainingJobs that live as the operator and its pods would have them."""

import asyncio
import hashlib
import json
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from world import NAMESPACE, clock

from headway_api.contract import ANNOTATION_TRIAL, LABEL_RUN, LABEL_TRIAL
from headway_operator.cluster.client import Object, Resource
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.trainingjob.times import timestamp

TERMINAL = ("Succeeded", "Failed")


class SweepCluster(MemoryCluster):
    """A cluster that looks at a sweep's trials after each write."""

    def __init__(self, clock: Callable[[], datetime]) -> None:
        super().__init__(clock)
        self.chosen: dict[tuple[int, int], dict[str, Any]] = {}
        """Parameters of every run that was ever made, by index and number."""
        self.most_active = 0
        self.broken: list[str] = []
        self._late = False

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        made = await super().create(resource, namespace, body)
        if resource == TRAINING_JOB:
            self._check_new(made)
            if not self._late:
                await self._count_active()
        if resource == SWEEP_RECORD:
            self._note_records(made)
        return made

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, **options: Any
    ) -> Object:
        new = await super().patch(resource, namespace, name, body, **options)
        if resource == SWEEP_RECORD:
            self._note_records(new)
        if resource == TRAINING_JOB:
            place = place_of(new)
            if params_of(new) != self.chosen[place]:
                self.broken.append(f"trial {place} has changed")
        return new

    @contextmanager
    def late_write(self) -> Iterator[None]:
        """Within, a dead operator writes."""
        self._late = True
        try:
            yield
        finally:
            self._late = False

    def _check_new(self, made: Object) -> None:
        place = place_of(made)
        if place in self.chosen:
            self.broken.append(f"trial {place} was made twice")
        index, number = place
        before = (index, number - 1) if number else (index - 1, 0)
        if before[0] >= 0 and before not in self.chosen:
            self.broken.append(f"trial {place} was made before {before}")
        self.chosen[place] = params_of(made)

    def _note_records(self, record: Object) -> None:
        """What could not be made is in a record only."""
        for key, run in record["spec"]["runs"].items():
            index, number = map(int, key.split("-"))
            if self.chosen.setdefault((index, number), run["params"]) != run["params"]:
                self.broken.append(f"the record of trial {key} is not what was chosen")

    async def _count_active(self) -> None:
        jobs = (await self.list(TRAINING_JOB)).items
        active = sum(phase_of(job) not in (*TERMINAL, "Suspended") for job in jobs)
        self.most_active = max(self.most_active, active)


def place_of(job: Object) -> tuple[int, int]:
    labels = job["metadata"]["labels"]
    return int(labels[LABEL_TRIAL]), int(labels[LABEL_RUN])


def params_of(job: Object) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(job["metadata"]["annotations"][ANNOTATION_TRIAL])["params"]
    return found


def phase_of(job: Object) -> str:
    return (job.get("status") or {}).get("phase") or "Pending"


@dataclass
class Curve:
    """How a trial's training goes, by its parameters.

    Attributes:
        steps: of a whole training.
        fails: whether the script fails half-way, by index.
        silent: whether it never reports, by index.
    """

    steps: int = 27
    fails: Callable[[int], bool] = lambda index: False
    silent: Callable[[int], bool] = lambda index: False

    def value(self, params: dict[str, Any], seed: str, step: int) -> float:
        loss = sum((float(value) - 0.3) ** 2 for value in params.values())
        noise = hashlib.sha256(f"{sorted(params.items())}{seed}".encode()).digest()[0] / 25600
        return loss + noise + 1.0 / step


@dataclass
class Trainings:
    """Everything that happens to the TrainingJobs of a sweep; `step` moves it on by a moment."""

    cluster: SweepCluster
    rng: random.Random
    log: Callable[[str], None]
    curve: Curve = field(default_factory=Curve)
    speed: float = 3.0
    """Optimizer steps in a second."""
    trained: dict[tuple[int, int], int] = field(default_factory=dict)
    """Steps that were really done by each run: what was done twice counts twice."""
    _at: dict[str, float] = field(default_factory=dict)

    async def step(self, seconds: float) -> None:
        for job in (await self.cluster.list(TRAINING_JOB)).items:
            if phase_of(job) not in TERMINAL:
                await self._live(job, seconds)

    async def _live(self, job: Object, seconds: float) -> None:
        spec, status = job["spec"], job.get("status") or {}
        place, uid = place_of(job), job["metadata"]["uid"]
        done = (status.get("progress") or {}).get("step") or 0
        pause = spec.get("pauseAtStep")
        if spec.get("suspend"):
            if phase_of(job) != "Suspended":
                await self._write(job, {"phase": "Suspended", "reason": "Suspended"})
            return
        if pause is not None and done >= pause:
            if (status.get("phase"), status.get("reason")) != ("Suspended", "PausedAtStep"):
                await self._write(job, {"phase": "Suspended", "reason": "PausedAtStep"})
            return
        if self.rng.random() < 0.2:  # waits for a node
            return
        end = min(self.curve.steps, pause or self.curve.steps)
        exact = self._at.get(uid, float(done)) + seconds * self.speed
        self._at[uid] = exact
        now = min(int(exact), end)
        self.trained[place] = self.trained.get(place, 0) + max(now - done, 0)
        await self._report(job, now, place)

    async def _report(self, job: Object, step: int, place: tuple[int, int]) -> None:
        body: dict[str, Any] = {"phase": "Running", "reason": "AllWorkersReady"}
        body["progress"] = {"step": step}
        body["startTime"] = (job.get("status") or {}).get("startTime") or timestamp(clock())
        if self.curve.fails(place[0]) and step > self.curve.steps // 2:
            await self._write(job, {**body, "phase": "Failed", "reason": "Error"})
            return
        if not self.curve.silent(place[0]) and step:
            body["observations"] = [self._observation(job, step)]
        body["checkpoint"] = {"step": step, "uri": f"s3://b/{job['metadata']['name']}/{step}"}
        if step >= self.curve.steps:
            body |= {"phase": "Succeeded", "reason": "Succeeded"}
        await self._write(job, body)

    def _observation(self, job: Object, last: int) -> Object:
        seed = job["spec"]["parameters"].get("seed", "")
        params = params_of(job)
        points = [
            {"step": step, "value": repr(self.curve.value(params, seed, step))}
            for step in {1, *range(max(1, last - 62), last + 1)}
        ]
        points.sort(key=lambda point: int(point["step"]))
        by_value = sorted(points, key=lambda point: float(str(point["value"])))
        return {
            "metric": "loss",
            "last": points[-1],
            "min": by_value[0],
            "max": by_value[-1],
            "curve": points,
        }

    async def _write(self, job: Object, status: Object) -> None:
        name = job["metadata"]["name"]
        self.log(f"{name}: {status['phase']} {status.get('progress')}")
        body = {"status": status}
        await self.cluster.patch(TRAINING_JOB, NAMESPACE, name, body, subresource="status")


def a_sweep(**spec: Any) -> Object:
    body: dict[str, Any] = {
        "parameters": [
            {"name": "x", "float": {"min": 0, "max": 1}},
            {"name": "y", "float": {"min": 0, "max": 1}},
        ],
        "objectives": [{"metric": "loss"}],
        "algorithm": {"name": "random"},
        "maxTrials": 6,
        "parallelTrials": 2,
        "template": {
            "spec": {
                "image": "i",
                "command": ["train", "--x=${params.x}", "--y=${params.y}"],
                "storage": {"uri": "s3://b/p"},
            }
        },
        **spec,
    }
    return {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "Sweep",
        "metadata": {"name": "sweep", "namespace": NAMESPACE},
        "spec": body,
    }


async def the_sweep(cluster: MemoryCluster) -> Object:
    return await cluster.get(SWEEP, NAMESPACE, "sweep")


def now() -> float:
    return asyncio.get_running_loop().time()


__all__ = [
    "NAMESPACE",
    "Curve",
    "SweepCluster",
    "Trainings",
    "a_sweep",
    "clock",
    "now",
    "the_sweep",
]
