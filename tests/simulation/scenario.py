"""One simulated history from one seed, and what has to be true at its end."""

import asyncio
import random
from dataclasses import dataclass, field
from typing import Any

from faults import Faults, FaultyClient
from invariants import TERMINAL, CheckedCluster
from operation import Operator
from queues import Kueue
from world import EPOCH, NAMESPACE, Trouble, Truth, World, clock

from headway_api.messages import ProgressReport
from headway_operator.cluster.client import POD, ApiError, Object
from headway_operator.resources import TRAINING_JOB
from headway_operator.settings import Settings
from headway_operator.trainingjob.view import controller_uid

UNREST = 300.0
"""Seconds in which users and fate interfere; after that everything has to come to its end."""
PATIENCE = 4000.0


@dataclass
class Simulation:
    """A world, an operator that keeps dying, and users."""

    seed: int
    faults: Faults = field(default_factory=Faults)
    settings: Settings = field(default_factory=lambda: Settings(workers=4))
    trace: list[str] = field(default_factory=list)
    writes: list[str] = field(default_factory=list)
    bugs: list[str] = field(default_factory=list)
    """Errors that the operator logged: no fault of the cluster's may look like one of ours."""

    def __post_init__(self) -> None:
        self.rng = random.Random(self.seed)
        self.truths: dict[str, Truth] = {}
        self.cluster = CheckedCluster(clock, self.truths)
        self.world = World(self.cluster, self.rng, self.log, truths=self.truths)
        self.cluster.silences, self.cluster.spoke = self.world.silences, self.world.spoke
        self.kueue: Kueue | None = None
        self.operator: Operator | None = None
        self.starts_at = 0.0
        self.operator_since = 0.0
        self.on_their_way: list[asyncio.Task[None]] = []
        self.old_reports: list[tuple[str, ProgressReport]] = []

    def log(self, text: str) -> None:
        self.trace.append(f"{self.now:8.2f} {text}")

    @property
    def now(self) -> float:
        return asyncio.get_running_loop().time()

    async def install_kueue(self, quota: int) -> None:
        """From now on there are queues, with so many pods to give."""
        patience = 60.0 if self.faults.crash_moment == "on its way" else 0.0
        self.kueue = Kueue(self.cluster, self.rng, self.log, quota, patience)
        self.world.preempt = self.kueue.preempt
        await self.kueue.install()

    # --- the operator's lives ------------------------------------------------------------------

    async def keep_operator(self) -> None:
        """Bury a dead operator and start the next."""
        if self.operator is not None and self.operator.client.crashed.is_set():
            await self.stop()
            self.starts_at = self.now + self.rng.uniform(0, 20)
        if self.operator is None and self.now >= self.starts_at:
            self.log("the operator starts")
            client = FaultyClient(self.cluster, self.faults, self.rng, self.log)
            client.writes = self.writes
            client.on_their_way = self.on_their_way
            self.operator_since = self.now
            self.operator = Operator(client, self.settings, clock, self.rng)

    async def stop(self) -> None:
        if self.operator is not None:
            await self.operator.stop()
        self.operator = None

    # --- time ------------------------------------------------------------------------------------

    async def moment(self) -> None:
        seconds = self.rng.uniform(0.3, 1.0)
        await asyncio.sleep(seconds)
        await self.world.step(seconds)
        if self.kueue is not None:
            await self.kueue.step()
        self.report_progress()
        self.report_silence()
        await self.keep_operator()
        assert not self.cluster.broken, self.cluster.broken[0]
        assert not self.bugs, self.bugs[0]
        await self._check_lost_nodes()

    async def _check_lost_nodes(self) -> None:
        """Nobody waits for a silent node: its pods are made again elsewhere."""
        lost = {
            machine.name
            for machine in self.world.machines.values()
            if machine.known_lost and self.now - max(machine.told_at, self.operator_since) > 90
        }
        if not lost or self.operator is None:
            return
        active = {
            job["metadata"]["uid"]
            for job in await self.jobs()
            if (job.get("status") or {}).get("phase") not in TERMINAL
        }
        for pod in (await self.cluster.list(POD)).items:
            if controller_uid(pod) in active and pod["spec"].get("nodeName") in lost:
                phase = pod["status"].get("phase")
                assert phase in TERMINAL, f"{pod['metadata']['name']} waits for a silent node"

    async def until_over(self) -> None:
        while not await self.is_over():
            assert self.now < PATIENCE, "a job never came to an end"
            await self.moment()

    async def is_over(self) -> bool:
        jobs = {job["metadata"]["uid"]: job for job in await self.jobs()}
        return all(
            (truth.deleted_by_user and uid not in jobs)
            or (uid in jobs and (jobs[uid].get("status") or {}).get("phase") in TERMINAL)
            for uid, truth in self.truths.items()
        )

    async def jobs(self) -> list[Object]:
        return (await self.cluster.list(TRAINING_JOB)).items

    def report_progress(self) -> None:
        """Leads report through the endpoint, which lets only lead pods of now pass."""
        for lead in self.world.leads():
            if self.rng.random() < 0.15:
                self.old_reports.append((lead.uid, self.world.report(lead)))
        late = self.old_reports[-5:]
        if self.operator is None or not late or self.rng.random() > 0.2:
            return
        uid, report = self.rng.choice(late)
        for truth in self.truths.values():
            key = (NAMESPACE, truth.name)
            job = self.operator.cache.job(key)
            owner = job and job["metadata"]["uid"]
            pods = [pod for pod in self.operator.cache.pods(key) if pod.owner == owner]
            if any(pod.uid == uid and pod.index == 0 for pod in pods):
                self.operator.controller.record_progress(key, report)

    def report_silence(self) -> None:
        """Agents tell the endpoint whom they don't hear; it lets only pods of now speak."""
        if self.operator is None or not self.operator.ready:
            return
        for process, unheard in self.world.words():
            key = (NAMESPACE, self.truths[process.job].name)
            known = {pod.uid for pod in self.operator.cache.pods(key) if pod.owner == process.job}
            if process.uid in known:
                self.log(f"agents: {process.pod} hears nothing of {unheard}")
                self.operator.controller.heard(key, process.uid, known.intersection(unheard))

    # --- the end ---------------------------------------------------------------------------------

    async def check_end(self) -> None:
        """Each job ended as it had to, and then there is nothing left to do."""
        jobs = {job["metadata"]["uid"]: job for job in await self.jobs()}
        for uid, truth in self.truths.items():
            if uid in jobs:
                check_verdict(truth, jobs[uid])
        self.last_jobs = list(jobs.values())
        self.faults = Faults()
        await self.stop()
        await asyncio.gather(*self.on_their_way)
        self.starts_at = 0.0
        for _ in range(250):  # pods that are left get their grace; nodes come back
            await self.moment()
        await self._check_pods()
        before = len(self.writes)
        await asyncio.sleep(700)
        assert self.writes[before:] == [], "the operator writes though nothing is left to do"
        await self.stop()

    async def _check_pods(self) -> None:
        jobs = {job["metadata"]["uid"] for job in await self.jobs()}
        for pod in (await self.cluster.list(POD)).items:
            if controller_uid(pod) in jobs:  # others are the garbage collector's
                assert pod["status"].get("phase") in TERMINAL, "a pod is left running"


def check_verdict(truth: Truth, job: Object) -> None:
    """The end that the truth demands."""
    status = job["status"]
    restarts = status.get("restarts") or {}
    happened = truth.countable + truth.in_place
    told = f"{truth} {status}"
    if status["phase"] == "Succeeded":
        assert truth.completed, told
    elif status["reason"] == "RestartBudgetExhausted":
        assert truth.budget_exit or happened > truth.maximum, told
    else:
        assert status["reason"] == "ConfigurationError", told
        assert truth.config_exit, told
    if truth.exact:
        check_exactly(truth, restarts, status, told)


def check_exactly(
    truth: Truth, restarts: dict[str, Any], status: dict[str, Any], told: str
) -> None:
    happened = truth.countable + truth.in_place
    too_many = truth.budget_exit or happened > truth.maximum
    # A lead may learn too late that pods have used up its budget: if it got done, it is done.
    forgiven = truth.completed and truth.in_place > 0 and not truth.config_exit
    if not (too_many and forgiven):
        demanded = "Failed" if too_many or truth.config_exit else "Succeeded"
        assert status["phase"] == demanded, told
    counted = restarts.get("counted", 0)
    if status["phase"] == "Succeeded":
        assert restarts.get("total", 0) == truth.restarts + truth.in_place, told
    if status["phase"] == "Failed" and truth.in_place:  # what the lead could not report any more
        assert truth.countable <= counted + truth.in_place, told
    else:
        assert counted == min(happened, truth.maximum), told


def random_script(rng: random.Random, work: float, kinds: list[str], most: int) -> list[Trouble]:
    count = rng.randint(0, most)
    moments = sorted(rng.uniform(0, work) for _ in range(count))
    return [Trouble(at, rng.choice(kinds), rng.randrange(4)) for at in moments]


def random_faults(rng: random.Random) -> Faults:
    """A good, a bad or a terrible day."""
    scale = rng.choice([0.0, 1.0, 3.0])
    return Faults(
        crash=0.02 * scale * rng.random(),
        error=0.05 * scale * rng.random(),
        slow_watch=0.05 * scale * rng.random(),
        broken_watch=0.02 * scale * rng.random(),
        gone=0.04 * scale * rng.random(),
        latency=rng.choice([0.001, 0.02, 0.5]),
    )


async def exact_history(simulation: Simulation) -> None:
    """Losses come one at a time: whatever the faults, counts and ends are exact."""
    rng = simulation.rng
    simulation.faults = random_faults(rng)
    await simulation.world.add_machines(3)
    kinds = ["crash", "crash", "oom", "in place", "evict", "hang", "kill"]
    kinds += ["isolation", "partition"]
    for number in range(rng.randint(1, 2)):
        work = rng.uniform(5, 40)
        script = random_script(rng, work, [*kinds, "config"] if rng.random() < 0.1 else kinds, 5)
        truth = Truth(f"job{number}", "", work, script, rng.randint(0, 4), exact=True)
        truth.clumsy_ends = rng.choice([0, 0, 0, 1])
        pause = rng.choice([{}, {"pauseAtStep": rng.randint(1, 40)}])
        await simulation.world.submit(truth, job_spec(truth, rng.randint(1, 3), **pause))
    while not await simulation.is_over():
        assert simulation.now < PATIENCE, "a job never came to an end"
        await simulation.moment()
        if rng.random() < 0.05:
            await promote(simulation)
    await simulation.check_end()


async def promote(simulation: Simulation) -> None:
    """Somebody has those that have paused go on, for a while or to their end."""
    for job in await simulation.jobs():
        reached = (job.get("status") or {}).get("pausedAtStep")
        if reached is not None:
            until = simulation.rng.choice([None, reached + simulation.rng.randint(1, 20)])
            await edit(simulation, job, {"pauseAtStep": until})


async def wild_history(simulation: Simulation) -> None:
    """Everything at once: users, evictions, power cuts, lost last words."""
    rng = simulation.rng
    simulation.faults = random_faults(rng)
    simulation.world.junk = rng.choice([0.0, 0.3])
    await simulation.world.add_machines(3)
    kinds = ["crash", "oom", "in place", "evict", "hang", "kill", "power cut"]
    kinds += ["isolation", "partition"]
    for number in range(rng.randint(1, 3)):
        work = rng.uniform(5, 60)
        truth = Truth(f"job{number}", "", work, random_script(rng, work, kinds, 4), 8)
        truth.clumsy_ends = rng.choice([0, 0, 0, 1, 2])
        await simulation.world.submit(truth, job_spec(truth, rng.randint(1, 3)))
    while simulation.now < UNREST and not await simulation.is_over():
        await simulation.moment()
        if rng.random() < 0.03:
            await meddle(simulation)
    for job in await simulation.jobs():
        await edit(simulation, job, {"suspend": False, "pauseAtStep": None})
    await simulation.until_over()
    await simulation.check_end()


async def meddle(simulation: Simulation) -> None:
    """A user or fate interferes with a job."""
    rng, world = simulation.rng, simulation.world
    jobs = await simulation.jobs()
    if not jobs:
        return
    job = rng.choice(jobs)
    name, spec = job["metadata"]["name"], job["spec"]
    act = rng.choices(
        ["suspend", "pause", "edit", "take", "power", "delete", "replicas"],
        [6, 6, 1, 3, 2, 1, 3],
    )[0]
    if act == "suspend":
        await edit(simulation, job, {"suspend": not spec.get("suspend", False)})
    elif act in {"pause", "edit"} or (act == "replicas" and spec.get("suspend")):
        await edit(simulation, job, random_edit(rng, act))
    elif act == "take":
        pods = (await simulation.cluster.list(POD)).items
        if pods:
            victim = rng.choice(pods)["metadata"]["name"]
            simulation.log(f"somebody takes {victim}")
            await world.take_pod(victim, gracefully=rng.random() < 0.7)
    elif act == "power":
        await world.power_cut(rng.choice(list(world.machines)), rng.uniform(5, 200))
    elif act == "delete":
        await delete_job(simulation, job)
        if rng.random() < 0.7:  # and comes back under the same name
            truth = Truth(name, "", rng.uniform(5, 30), [], 8)
            await world.submit(truth, job_spec(truth, rng.randint(1, 3)))


def random_edit(rng: random.Random, act: str) -> dict[str, Any]:
    """A change to a job's spec."""
    if act == "pause":
        return {"pauseAtStep": rng.choice([None, rng.randint(1, 60)])}
    if act == "replicas":
        return {"workers": {"replicas": rng.randint(1, 4)}}
    return {"pod": {"env": [{"name": "A", "value": str(rng.random())}]}}


async def delete_job(simulation: Simulation, job: Object) -> None:
    simulation.log(f"user: deletes {job['metadata']['name']}")
    simulation.truths[job["metadata"]["uid"]].deleted_by_user = True
    await simulation.cluster.delete(TRAINING_JOB, NAMESPACE, job["metadata"]["name"])


async def edit(simulation: Simulation, job: Object, change: dict[str, Any]) -> None:
    simulation.log(f"user: edits {job['metadata']['name']} {change}")
    try:
        await simulation.cluster.patch(
            TRAINING_JOB, NAMESPACE, job["metadata"]["name"], {"spec": change}
        )
    except ApiError as error:  # gone
        simulation.log(f"  {error}")


def job_spec(truth: Truth, replicas: int, **fields: Any) -> Object:
    return {
        "workers": {"replicas": replicas},
        "failurePolicy": {"maxRestarts": truth.maximum},
        "storage": {"uri": "s3://bucket"},
        "observe": {"metrics": ["loss"]},
        **fields,
    }


__all__ = ["EPOCH", "Simulation", "exact_history", "wild_history"]
