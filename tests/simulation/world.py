"""What surrounds the operator: nodes, a scheduler, kubelets, agents that train, and the truth."""

import asyncio
import random
from collections.abc import Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

from headway_api.contract import (
    API_VERSION,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_INDEX,
    ExitCode,
)
from headway_api.messages import ProgressReport, RestartReport, TerminationReport
from headway_api.observations import report
from headway_operator.cluster.client import NODE, POD, ApiError, NotFound, Object
from headway_operator.cluster.memory import MemoryCluster
from headway_operator.resources import TRAINING_JOB
from headway_operator.trainingjob.times import timestamp
from headway_operator.trainingjob.view import controller_uid

EPOCH = datetime(2026, 1, 1, tzinfo=UTC)
NAMESPACE = "lab"
COUNTABLE = frozenset({1, 137})
"""Exit codes of the user's program: these use up the budget."""


def loss(step: int) -> float:
    """What training has come to; the smallest value lies before the end."""
    return abs(step - 7) + 0.5


def clock() -> datetime:
    """The virtual time of day."""
    return EPOCH + timedelta(seconds=asyncio.get_running_loop().time())


@dataclass
class Trouble:
    """Something that goes wrong once so much work is done."""

    at: float
    kind: str
    """`crash`, `oom`, `config`, `in place`, `evict`, `hang`, `kill`, `power cut`, `isolation` (no
    network for a pod), `partition` (its peers can't reach it, the operator can), `preempt` (its
    quota is taken back)."""
    victim: int = 0


@dataclass
class Truth:
    """What really happened to a job, to hold against what its status says."""

    name: str
    uid: str
    work: float
    script: list[Trouble]
    maximum: int
    exact: bool = False
    """Whether nothing happens that may rightly be counted one way or the other."""
    done: float = 0.0
    generation: int = 0
    completed: bool = False
    countable: int = 0
    lost: int = 0
    """Processes that did not end well."""
    restarts: int = 0
    """Losses of pods that the operator had to answer, where they come one by one."""
    in_place: int = 0
    clumsy_ends: int = 0
    """How often the lead fails just when all are done."""
    clumsy_pauses: int = 0
    """How often it fails just when all have paused."""
    config_exit: bool = False
    budget_exit: bool = False
    training: bool = False
    ever_suspended: bool = False
    deleted_by_user: bool = False
    peers: dict[int, str] = field(default_factory=dict)
    """UIDs of the pods that trained last, by index: they know of each other."""


@dataclass
class Process:
    """An agent and its workers, from the start of a container to its end."""

    pod: str
    uid: str
    job: str
    index: int
    attempt: int
    node: str
    started: str
    pause_at: int | None = None
    """`spec.pauseAtStep`, as far as this agent has heard."""
    said: int = 0
    """How many reports it has made."""
    base_counted: int = 0
    total: int = 0
    counted: int = 0
    ends_at: float | None = None
    code: int = 0
    culprit: RestartReport | None = None
    finished: bool = False
    hangs: bool = False
    """Whether it trains no more and its kubelet never gets it ended, on a node that seems well."""
    speaks_at: float = 0.0
    """When it next tells the endpoint of peers that it hears nothing of."""
    misses: list[str] = field(default_factory=list)
    """UIDs of those that it told of last."""


@dataclass
class Machine:
    """A node."""

    name: str
    dead_since: float | None = None
    returns_at: float = 0.0
    known_lost: bool = False
    told_at: float = 0.0


@dataclass
class Silence:
    """A time in which the peers of a pod hear nothing of it."""

    since: float
    until: float
    kind: str
    """`power cut`, `isolation` or `partition`."""

    @property
    def total(self) -> bool:
        """Whether the operator hears nothing either."""
        return self.kind != "partition"

    def lasts(self, now: float) -> bool:
        return now < self.until


@dataclass
class World:
    """Everything but the operator; `step` moves it on by a moment."""

    cluster: MemoryCluster
    rng: random.Random
    log: Callable[[str], None]
    machines: dict[str, Machine] = field(default_factory=dict)
    truths: dict[str, Truth] = field(default_factory=dict)
    processes: dict[str, Process] = field(default_factory=dict)
    starting: dict[str, float] = field(default_factory=dict)
    junk: float = 0.0
    """How often an agent's last words are lost."""
    silences: dict[str, Silence] = field(default_factory=dict)
    """Of pods by UID, the latest."""
    spoke: dict[str, float] = field(default_factory=dict)
    """When pods last said that they hear nothing of a peer."""
    preempt: Callable[[str], Awaitable[None]] | None = None
    """Takes a job's quota back, where there are queues."""

    # --- set-up ----------------------------------------------------------------------------

    async def add_machines(self, count: int) -> None:
        for number in range(count):
            name = f"node-{number}"
            self.machines[name] = Machine(name)
            await self.cluster.create(NODE, None, {"metadata": {"name": name}})
            await self._report_node(name, "True")

    async def submit(self, truth: Truth, spec: Object) -> None:
        body = {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": {"name": truth.name},
            "spec": {"image": "i", "command": ["c"], **spec},
        }
        made = await self.cluster.create(TRAINING_JOB, NAMESPACE, body)
        truth.uid = made["metadata"]["uid"]
        self.truths[truth.uid] = truth
        self.log(f"user: creates {truth.name} {spec} {truth.script}")

    # --- one moment ------------------------------------------------------------------------

    async def step(self, seconds: float) -> None:
        now = asyncio.get_running_loop().time()
        await self._nodes(now)
        pods = (await self.cluster.list(POD)).items
        jobs = {
            job["metadata"]["uid"]: job for job in (await self.cluster.list(TRAINING_JOB)).items
        }
        await self._kubelets(pods, jobs, now)
        for uid, job in jobs.items():
            if uid in self.truths:
                await self._train(self.truths[uid], job, seconds, now)

    # --- nodes and kubelets ------------------------------------------------------------------

    async def power_cut(self, name: str, seconds: float) -> None:
        machine = self.machines[name]
        if machine.dead_since is None:
            machine.dead_since = asyncio.get_running_loop().time()
            machine.returns_at = machine.dead_since + seconds
            self.log(f"node: {name} loses power for {seconds:.0f} s")
            for process in [item for item in self.processes.values() if item.node == name]:
                self._truth_of(process).lost += 1
                del self.processes[process.uid]
                self.silences[process.uid] = Silence(machine.dead_since, float("inf"), "power cut")

    async def _nodes(self, now: float) -> None:
        for machine in self.machines.values():
            if machine.dead_since is None:
                continue
            if now >= machine.returns_at:
                machine.dead_since = None
                if machine.known_lost:
                    machine.known_lost = False
                    await self._report_node(machine.name, "True")
                await self._fail_pods_after_reboot(machine.name)
            elif not machine.known_lost and now - machine.dead_since > 40:
                machine.known_lost, machine.told_at = True, now
                self.log(f"node: {machine.name} is Unknown")
                await self._report_node(machine.name, "Unknown")

    async def _report_node(self, name: str, ready: str) -> None:
        conditions = [{"type": "Ready", "status": ready}]
        await self.cluster.patch(
            NODE, None, name, {"status": {"conditions": conditions}}, subresource="status"
        )

    async def _fail_pods_after_reboot(self, node: str) -> None:
        """A kubelet that comes back finds its containers dead: the pods end with 255."""
        for pod in (await self.cluster.list(POD)).items:
            if pod["spec"].get("nodeName") == node and not _ended(pod):
                await self._end_pod(pod, 255, "")

    async def _kubelets(self, pods: list[Object], jobs: dict[str, Object], now: float) -> None:
        present = {pod["metadata"]["uid"] for pod in pods}
        for uid in [uid for uid in self.processes if uid not in present]:
            process = self.processes.pop(uid)  # removed by force: the kubelet stops it
            self._truth_of(process).lost += not process.finished
            if uid in self.silences:  # nothing is said against it any more: its connections end
                self.silences[uid].until = min(self.silences[uid].until, now)
        for pod in pods:
            node = pod["spec"].get("nodeName")
            if node is None:
                self._schedule(pod, now)
            elif self.machines[node].dead_since is None:
                await self._kubelet(pod, jobs, now)

    def _schedule(self, pod: Object, now: float) -> None:
        shut = excluded(pod)
        alive = [
            item.name
            for item in self.machines.values()
            if not item.known_lost and item.name not in shut
        ]
        if alive and "deletionTimestamp" not in pod["metadata"] and self._is_time(pod, now, 1.0):
            node = self.rng.choice(alive)
            self.cluster.bind(NAMESPACE, pod["metadata"]["name"], node)

    async def _kubelet(self, pod: Object, jobs: dict[str, Object], now: float) -> None:
        uid = pod["metadata"]["uid"]
        process = self.processes.get(uid)
        deleting = "deletionTimestamp" in pod["metadata"]
        if process is None:
            if deleting:
                await self._finish_deletion(pod)
            elif not _ended(pod) and self._is_time(pod, now, 3.0):
                await self._start(pod, jobs)
            return
        if deleting and process.hangs:
            return
        if deleting and process.ends_at is None:
            grace = pod["metadata"]["deletionGracePeriodSeconds"]
            process.ends_at = now + self.rng.uniform(0, min(grace, 12))
            process.code = ExitCode.PREEMPTED
        if process.ends_at is not None and now >= process.ends_at:
            await self._end(process, pod)
            if deleting:
                await self._finish_deletion(pod)

    def _is_time(self, pod: Object, now: float, longest: float) -> bool:
        """Whether a random time has passed since the first call with this pod as it is."""
        key = f"{pod['metadata']['uid']}/{'nodeName' in pod['spec']}"
        due = self.starting.setdefault(key, now + self.rng.uniform(0, longest))
        return now >= due

    async def _start(self, pod: Object, jobs: dict[str, Object]) -> None:
        metadata = pod["metadata"]
        job = jobs.get(controller_uid(pod))
        if job is None:
            return
        started = timestamp(clock())
        counted = ((job.get("status") or {}).get("restarts") or {}).get("counted", 0)
        self.processes[metadata["uid"]] = Process(
            pod=metadata["name"],
            uid=metadata["uid"],
            job=job["metadata"]["uid"],
            index=int(metadata["labels"][LABEL_INDEX]),
            attempt=int(metadata["labels"][LABEL_ATTEMPT]),
            node=pod["spec"]["nodeName"],
            started=started,
            pause_at=job["spec"].get("pauseAtStep"),
            base_counted=counted,
        )
        self.log(f"kubelet: {metadata['name']} runs on {pod['spec']['nodeName']}")
        await self._report_pod(
            pod,
            "Running",
            {"running": {"startedAt": started}},
            ready="True",
            podIP=f"10.0.0.{self.rng.randrange(250)}",
        )

    async def _end(self, process: Process, pod: Object) -> None:
        truth = self._truth_of(process)
        process.finished = True
        del self.processes[process.uid]
        if process.code != ExitCode.DONE:
            truth.lost += 1
        truth.countable += process.code in COUNTABLE
        truth.config_exit |= process.code == ExitCode.CONFIG
        truth.budget_exit |= process.code == ExitCode.BUDGET
        said = TerminationReport(
            reason="Done" if process.code == 0 else "Error",
            exit_code=process.code,
            culprit=process.culprit,
            progress=self.report(process) if process.index == 0 else None,
        ).model_dump_json(by_alias=True)
        junk = self.rng.random() < self.junk
        await self._end_pod(pod, process.code, "Traceback: {" if junk else said)

    async def _end_pod(self, pod: Object, code: int, message: str) -> None:
        self.log(f"kubelet: {pod['metadata']['name']} ends with {code}")
        moment = timestamp(clock())
        ended = {"exitCode": code, "message": message, "startedAt": moment, "finishedAt": moment}
        state = pod.get("status", {}).get("containerStatuses") or [{}]
        begun = state[0].get("state", {}).get("running", {}).get("startedAt")
        ended["startedAt"] = begun or moment
        reasons = {0: "Completed", 137: "OOMKilled", 255: "Unknown"}
        ended["reason"] = reasons.get(code, "Error")
        phase = "Failed" if code else "Succeeded"
        await self._report_pod(pod, phase, {"terminated": ended}, ready="False")

    async def _report_pod(
        self, pod: Object, phase: str, state: dict[str, Any], *, ready: str, **fields: Any
    ) -> None:
        held = (pod.get("status") or {}).get("conditions") or ()
        kept = [entry for entry in held if entry["type"] != "Ready"]
        container = {
            "name": CONTAINER,
            "state": {"running": None, "waiting": None, "terminated": None, **state},
        }
        status = {
            "phase": phase,
            "conditions": [*kept, {"type": "Ready", "status": ready}],
            "containerStatuses": [_without_none(container)],
            **fields,
        }
        with suppress(NotFound):
            await self.cluster.patch(
                POD, NAMESPACE, pod["metadata"]["name"], {"status": status}, subresource="status"
            )

    async def _finish_deletion(self, pod: Object) -> None:
        metadata = pod["metadata"]
        with suppress(ApiError):  # not the cluster's own method: that checks the operator
            await MemoryCluster.delete(
                self.cluster,
                POD,
                NAMESPACE,
                metadata["name"],
                uid=metadata["uid"],
                grace_seconds=0,
            )

    # --- agents ------------------------------------------------------------------------------

    async def _train(self, truth: Truth, job: Object, seconds: float, now: float) -> None:
        members = self._members(job)
        connected = members is not None and all(self._well(member, now) for member in members)
        if not connected or members is None:
            truth.training = False
            return
        if not truth.training:
            truth.training = True
            truth.generation += 1
        truth.peers = {process.index: process.uid for process in members}
        bound = self._bound(truth, members[0], job)
        truth.done = max(truth.done, min(truth.done + seconds, bound))
        status = job.get("status") or {}
        # Where counting has to be exact, losses come one by one.
        settled = not truth.exact or status.get("phase") == "Running"
        if truth.script and truth.done >= truth.script[0].at and settled:
            await self._trouble(truth, truth.script.pop(0), members, now)
        elif truth.done >= bound and settled:
            self._pause(truth, members, now)
        elif truth.done >= truth.work and not truth.script and settled:
            self._complete(truth, members, now)

    def _bound(self, truth: Truth, lead: Process, job: Object) -> float:
        """How far the ranks train; the lead hears of another step with its next report."""
        if self.rng.random() < 0.2:
            lead.pause_at = job["spec"].get("pauseAtStep")
        ends = lead.pause_at is None or lead.pause_at >= truth.work
        return float("inf") if ends else float(lead.pause_at or 0)

    def _pause(self, truth: Truth, members: list[Process], now: float) -> None:
        """All ranks have saved the same step; the pods end, in whatever order."""
        self.log(f"agents: {truth.name} has paused at {truth.done:.2f}")
        for process in members:
            process.code = ExitCode.PAUSED
            process.ends_at = now + self.rng.uniform(0, 3)
        if truth.clumsy_pauses:
            truth.clumsy_pauses -= 1
            truth.restarts += 1
            members[0].code = 1

    def _members(self, job: Object) -> list[Process] | None:
        """One process of the newest attempt for each index, the lead first; None if incomplete."""
        replicas = job["spec"].get("workers", {}).get("replicas", 1)
        own = [item for item in self.processes.values() if item.job == job["metadata"]["uid"]]
        newest = max((process.attempt for process in own), default=0)
        by_index = {process.index: process for process in own if process.attempt == newest}
        if not all(index in by_index for index in range(replicas)):
            return None
        return [by_index[index] for index in range(replicas)]

    def _complete(self, truth: Truth, members: list[Process], now: float) -> None:
        """All ranks are done: the lead tells the others and ends last, or nearly so."""
        self.log(f"agents: {truth.name} is trained")
        truth.completed = True
        for process in members:
            process.code = ExitCode.DONE
            process.ends_at = now + self.rng.uniform(0, 1.5) + (1 if process.index == 0 else 0)
        if truth.clumsy_ends:  # the lead has told the others, and does not live to say so itself
            truth.clumsy_ends -= 1
            truth.restarts += 1
            members[0].code = 1
            for process in members:
                process.ends_at = now + self.rng.uniform(0, 12)

    async def _trouble(
        self, truth: Truth, trouble: Trouble, members: list[Process], now: float
    ) -> None:
        victim = members[trouble.victim % len(members)]
        apart = trouble.kind in {"isolation", "partition"}
        taken = trouble.kind in {"evict", "hang", "kill", "isolation"}
        if truth.exact and victim.index == 0 and taken:
            return  # what a lead did not live to report is rightly not counted
        self.log(f"trouble: {trouble.kind} of {victim.pod}")
        if trouble.kind == "preempt":
            assert self.preempt is not None
            await self.preempt(truth.name)
            return
        truth.restarts += trouble.kind != "in place" and not apart
        if trouble.kind == "power cut":
            await self.power_cut(victim.node, self.rng.uniform(60, 300))
        elif apart:
            self.silences[victim.uid] = Silence(now, now + self.rng.uniform(3, 100), trouble.kind)
        elif taken:
            victim.hangs = trouble.kind == "hang"
            await self.take_pod(victim.pod, gracefully=trouble.kind != "kill")
        elif trouble.kind == "in place":
            self._restart_in_place(truth, members, now)
        elif trouble.kind == "config":
            self._give_up(members, ExitCode.CONFIG, now)
        else:
            codes = {"crash": 1, "oom": 137}
            victim.code, victim.ends_at = codes[trouble.kind], now
            if trouble.kind == "crash":
                victim.culprit = RestartReport(
                    time=timestamp(clock()), reason="Error", worker=victim.index, exit_code=1
                )

    def _restart_in_place(self, truth: Truth, members: list[Process], now: float) -> None:
        """A worker process ended: the lead counts, by what it knew of the budget when it joined."""
        lead = members[0]
        if lead.base_counted + lead.counted >= truth.maximum:
            self._give_up(members, ExitCode.BUDGET, now)
            return
        lead.total += 1
        lead.counted += 1
        truth.in_place += 1
        truth.generation += 1

    def _give_up(self, members: list[Process], code: ExitCode, now: float) -> None:
        """The lead sends the others home; who is gone first is left to chance."""
        for process in members:
            process.code = code if process.index == 0 else ExitCode.PEER_LOST
            process.ends_at = now + self.rng.uniform(0, 3)

    async def take_pod(self, name: str, *, gracefully: bool) -> None:
        """Somebody else removes a pod: an eviction, or `kubectl delete --force`."""
        with suppress(ApiError):
            pod = await self.cluster.get(POD, NAMESPACE, name)
            if gracefully and self.rng.random() < 0.5:
                held = (pod.get("status") or {}).get("conditions") or []
                target = {
                    "type": "DisruptionTarget",
                    "status": "True",
                    "reason": "EvictionByEvictionAPI",
                }
                await self.cluster.patch(
                    POD,
                    NAMESPACE,
                    name,
                    {"status": {"conditions": [*held, target]}},
                    subresource="status",
                )
            grace = None if gracefully else 0
            await self.cluster.delete(POD, NAMESPACE, name, grace_seconds=grace)

    def _well(self, process: Process, now: float) -> bool:
        """Whether an agent and its workers work, and its peers can reach it."""
        silence = self.silences.get(process.uid)
        apart = silence is not None and silence.lasts(now)
        return not (process.ends_at or process.finished or process.hangs or apart)

    def words(self) -> list[tuple[Process, list[str]]]:
        """Agents that say something to the endpoint now, and whom they hear nothing of."""
        now, told = asyncio.get_running_loop().time(), []
        for process in self.processes.values():
            silence, peers = self.silences.get(process.uid), self._truth_of(process).peers
            if silence is not None and silence.total and silence.lasts(now):
                continue
            if peers.get(process.index) != process.uid:  # has not met its peers yet
                continue
            known = [uid for index, uid in peers.items() if (index == 0) != (process.index == 0)]
            unheard = [uid for uid in known if self._unheard(process.uid, uid, now)]
            changed, process.misses = unheard != process.misses, unheard
            if changed:  # the lead reports at once; others have to end their workers first
                process.speaks_at = now + (self.rng.uniform(0, 2) if process.index else 0)
            if now >= process.speaks_at and (unheard or (changed and process.index == 0)):
                every = (4, 7) if process.index else (0.5, 2)
                process.speaks_at = now + self.rng.uniform(*every)
                self.spoke[process.uid] = now
                told.append((process, unheard))
        return told

    def _unheard(self, speaker: str, uid: str, now: float) -> bool:
        """Whether one agent has heard nothing of another for 5 s."""
        both = (self.silences.get(speaker), self.silences.get(uid))
        return any(item and item.lasts(now) and now >= item.since + 5 for item in both)

    def report(self, lead: Process) -> ProgressReport:
        """What the lead agent would report now."""
        truth = self._truth_of(lead)
        lead.said += 1
        return ProgressReport(
            session=f"session-{lead.uid}",
            number=lead.said,
            attempt=lead.attempt,
            generation=truth.generation,
            state="Training" if truth.training else "Waiting",
            step=int(truth.done),
            total_steps=int(truth.work),
            updated_at=timestamp(clock()),
            observations=[report("loss", int(truth.done), loss(int(truth.done)))],
            restarts_total=lead.total,
            restarts_counted=lead.counted,
        )

    def leads(self) -> list[Process]:
        """The lead agents that are alive and can report."""
        now, found = asyncio.get_running_loop().time(), []
        for process in self.processes.values():
            silence = self.silences.get(process.uid)
            isolated = silence is not None and silence.total and silence.lasts(now)
            if process.index == 0 and not isolated:
                found.append(process)
        return found

    def _truth_of(self, process: Process) -> Truth:
        return self.truths[process.job]


def _ended(pod: Object) -> bool:
    return (pod.get("status") or {}).get("phase") in {"Succeeded", "Failed"}


def excluded(pod: Object) -> set[str]:
    """Names of the nodes that a pod can't be scheduled to: in all alternatives of its affinity."""
    required = pod["spec"].get("affinity", {}).get("nodeAffinity", {})
    terms = required.get("requiredDuringSchedulingIgnoredDuringExecution", {})
    shut = [
        {
            field["values"][0]
            for field in term.get("matchFields", ())
            if field["operator"] == "NotIn"
        }
        for term in terms.get("nodeSelectorTerms", ())
    ]
    return set.intersection(*shut) if shut else set()


def _without_none(container: dict[str, Any]) -> dict[str, Any]:
    state = {name: value for name, value in container["state"].items() if value is not None}
    return {**container, "state": state}
