"""What must hold after every single write to the cluster."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timedelta
from typing import Any

from world import EPOCH, Silence, Truth, excluded

from headway_api.contract import LABEL_ATTEMPT, LABEL_INDEX
from headway_operator.cluster.client import NODE, POD, NotFound, Object, Resource
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.resources import TRAINING_JOB
from headway_operator.settings import Settings
from headway_operator.trainingjob.view import controller_uid

TERMINAL = ("Succeeded", "Failed")
SETTLED = timedelta(seconds=29)
"""Age of a pod that can be lost by its peers' word, less what timestamps are rounded by."""
KEEP_OFF = timedelta(seconds=55)
"""How long a silent node is shunned, less the time that a decision takes to be carried out."""
OVERDUE = timedelta(seconds=Settings().overdue_seconds)


class CheckedCluster(MemoryCluster):
    """A cluster that looks at itself after each write."""

    def __init__(self, clock: Callable[[], datetime], truths: dict[str, Truth]) -> None:
        super().__init__(clock)
        self._now = clock
        self._truths = truths
        self._last: dict[str, dict[str, Any]] = {}
        self._back: dict[str, datetime] = {}
        self._late = False
        self._given_up: dict[str, tuple[datetime, str, str]] = {}
        self.silences: dict[str, Silence] = {}
        """The truth about pods that their peers don't hear."""
        self.spoke: dict[str, float] = {}
        """When pods last told the operator of such peers of theirs."""
        self.broken: list[str] = []
        """What did not hold; the operator can't swallow it."""

    async def create(self, resource: Resource, namespace: str | None, body: Object) -> Object:
        made = await super().create(resource, namespace, body)
        if resource == POD:
            with self._noting():
                await self._check_indices(controller_uid(made))
                self._check_place(made)
        return made

    async def patch(
        self, resource: Resource, namespace: str | None, name: str, body: Object, **options: Any
    ) -> Object:
        new = await super().patch(resource, namespace, name, body, **options)
        if resource == TRAINING_JOB:
            with self._noting():
                self._check_job(new)
        if resource == NODE:
            self._back[name] = self._now()
        return new

    async def delete(
        self, resource: Resource, namespace: str | None, name: str, **options: Any
    ) -> None:
        if resource == POD and options.get("grace_seconds") == 0 and "uid" in options:
            with self._noting():
                await self._check_force(namespace, name, options["uid"])
        await super().delete(resource, namespace, name, **options)

    @contextmanager
    def late_write(self) -> Iterator[None]:
        """Within, a dead operator writes: what it makes may be out of date, and is cleared away."""
        self._late = True
        try:
            yield
        finally:
            self._late = False

    @contextmanager
    def _noting(self) -> Iterator[None]:
        try:
            yield
        except AssertionError as error:
            self.broken.append(str(error))

    async def _check_indices(self, owner: str) -> None:
        """Never two pods for one index."""
        pods = (await self.list(POD)).items
        labels = [pod["metadata"]["labels"] for pod in pods if controller_uid(pod) == owner]
        counts = Counter(label[LABEL_INDEX] for label in labels)
        assert all(count == 1 for count in counts.values()), f"two pods for one index: {counts}"
        jobs = (await self.list(TRAINING_JOB)).items
        job = next((item for item in jobs if item["metadata"]["uid"] == owner), None)
        if job is None or self._late:  # deleted a moment ago; its pods go after it
            return
        assert not _ended(job.get("status") or {}), "a pod is made for a job that is over"
        rests = (job.get("status") or {}).get("pausedAtStep")
        assert rests is None, "a pod is made for a job that has paused"
        newest = (job.get("status") or {}).get("attempt", 1)
        made = max(int(label[LABEL_ATTEMPT]) for label in labels)
        assert made <= newest, f"a pod of attempt {made} before the status says so ({newest})"

    async def _check_force(self, namespace: str | None, name: str, uid: str) -> None:
        """Only what its node will never end is deleted by force (kubelets may, of course)."""
        try:
            pod = await self.get(POD, namespace, name)
        except NotFound:
            return
        if pod["metadata"]["uid"] != uid:
            return
        asked = pod["metadata"].get("deletionTimestamp")
        if asked is not None and self._now() >= datetime.fromisoformat(asked) + OVERDUE:
            return
        node = pod["spec"].get("nodeName")
        if node is None or pod["status"].get("phase") in TERMINAL:
            return
        ready = (await self.get(NODE, None, node))["status"]["conditions"][0]["status"]
        # A node may have come back a moment ago, which the operator could not know yet.
        lately = self._back.get(node, EPOCH) > self._now() - timedelta(seconds=60)
        if ready == "Unknown" or lately:
            return
        self._check_silence(pod)
        attempt = pod["metadata"]["labels"][LABEL_ATTEMPT]
        self._given_up[name] = (self._now(), node, attempt)

    def _check_silence(self, pod: Object) -> None:
        """Only who spoke neither to its peers nor to the operator is lost by the word of others."""
        name, now = pod["metadata"]["name"], (self._now() - EPOCH).total_seconds()
        silence = self.silences.get(pod["metadata"]["uid"])
        assert silence is not None, f"{name} was deleted by force"
        assert silence.total, f"{name} was deleted by force, though it spoke to the operator"
        # It may be heard of again just then, or while the operator that decided so was dead.
        assert silence.since + 5 <= now <= silence.until + 75, f"{name} was not silent for long"
        assert self.spoke.get(pod["metadata"]["uid"], 0) + 9 <= now, f"{name} has just spoken"
        age = self._now() - datetime.fromisoformat(pod["metadata"]["creationTimestamp"])
        assert age >= SETTLED, f"{name} was replaced twice in a row"

    def _check_place(self, pod: Object) -> None:
        """The successor of a silent pod keeps away from its node, whoever makes it."""
        name, attempt = pod["metadata"]["name"], pod["metadata"]["labels"][LABEL_ATTEMPT]
        time, node, before = self._given_up.pop(name, (EPOCH, "", ""))
        if attempt == before and self._now() < time + KEEP_OFF and not self._late:
            assert node in excluded(pod), f"{name} may come back to {node}"

    def _check_job(self, job: Object) -> None:
        uid, status = job["metadata"]["uid"], job.get("status") or {}
        before = self._last.get(uid, {})
        self._last[uid] = status
        self._check_end(before, status)
        self._check_pause(uid, status)
        for field in ("attempt", "generation", "activeSeconds"):
            assert status.get(field, 0) >= before.get(field, 0), f"{field} went back"
        self._check_counts(uid, before.get("restarts") or {}, status.get("restarts") or {})
        phase, conditions = status.get("phase"), _states(status)
        assert (conditions.get("Running") == "True") == (phase == "Running"), status
        assert _ended(status) == (phase in TERMINAL), status

    def _check_end(self, before: dict[str, Any], status: dict[str, Any]) -> None:
        """The end is never taken back, nor changed."""
        if not _ended(before):
            return
        for field in ("phase", "completionTime", "restarts", "message"):
            assert status.get(field) == before.get(field), f"{field} changed after the end"
        for kind in TERMINAL:
            assert _states(status).get(kind) == _states(before).get(kind), "the end was taken back"

    def _check_pause(self, uid: str, status: dict[str, Any]) -> None:
        """What is said to be reached is what is saved, and nothing was trained beyond it."""
        step, truth = status.get("pausedAtStep"), self._truths.get(uid)
        if step is None or truth is None:
            return
        assert step == int(truth.done), f"paused after {step}, not {truth.done}"
        assert status["progress"]["step"] == step, status

    def _check_counts(self, uid: str, before: dict[str, Any], after: dict[str, Any]) -> None:
        truth = self._truths.get(uid)
        total, counted = after.get("total", 0), after.get("counted", 0)
        for given_up in {*after.get("handledPods", ())} - {*before.get("handledPods", ())}:
            silence = self.silences.get(given_up)
            if truth is not None and silence is not None and silence.kind == "isolation":
                # Whether it lasts long enough is left to chance and faults: nothing else ends it.
                truth.restarts += after["last"]["reason"] == "NodeLost"
        assert total >= before.get("total", 0), "restarts.total went back"
        assert counted >= before.get("counted", 0), "restarts.counted went back"
        assert counted <= total
        if truth is not None:
            assert counted <= truth.maximum, f"{counted} restarts count, of {truth.maximum}"
            real = truth.countable + truth.in_place
            assert counted <= real, f"{counted} restarts count, but only {real} happened"


def _states(status: dict[str, Any]) -> dict[str, str]:
    return {entry["type"]: entry["status"] for entry in status.get("conditions") or ()}


def _ended(status: dict[str, Any]) -> bool:
    states = _states(status)
    return any(states.get(kind) == "True" for kind in TERMINAL)
