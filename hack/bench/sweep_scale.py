"""`make bench-sweep-scale`: a large sweep on a real API server, and one whose operator is killed.

The operator runs as a process with the settings of a cluster. kwok plays the nodes, so that pods
run as soon as they are scheduled; the bench ends them like a kubelet, with the last words of an
agent that has trained with the parameters of its pod.
"""

from __future__ import annotations

import asyncio
import json
import os
import subprocess
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

import aiohttp
import psutil
import typer
import uvloop
import yaml
from prometheus_client.parser import text_string_to_metric_families

from apiserver import ISSUER, ApiServer, api_server, free_ports, missing_binaries
from bench import harness
from bench.functions import FUNCTIONS
from headway_api import contract
from headway_api.messages import ProgressReport, TerminationReport
from headway_api.observations import report
from headway_operator.cluster.client import (
    CRD,
    NAMESPACE,
    NODE,
    POD,
    NotFound,
    Object,
    Resource,
)
from headway_operator.cluster.kube import KubeApi, connect
from headway_operator.reflector import Reflector
from headway_operator.resources import SWEEP, TRAINING_JOB

BINARIES = ("etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler", "kwok")
CONTROLLERS = (
    "garbage-collector-controller",
    "serviceaccount-controller",
    "node-lifecycle-controller",  # takes the taint off nodes that are ready
)
SYSTEM, ACCOUNT = "headway-system", "headway-operator"
USER = f"system:serviceaccount:{SYSTEM}:{ACCOUNT}"
SPACE, CANARIES = "bench", "canaries"
PROBLEM = FUNCTIONS["training"]
SERVICE_ACCOUNT = Resource("", "v1", "serviceaccounts", "ServiceAccount")
BINDING = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", "ClusterRoleBinding")
START_SECONDS = 90.0
CANARY_SECONDS = 5.0


# --- the cluster ----------------------------------------------------------------------------------


@contextmanager
def _cluster(folder: Path, nodes: int) -> Iterator[ApiServer]:
    """A control plane with a scheduler and kwok's nodes."""
    started: list[subprocess.Popen[bytes]] = []
    with api_server(controllers=CONTROLLERS) as server:
        config = str(server.kubeconfig)
        (port,) = free_ports(1)
        scheduler = ["kube-scheduler", "--leader-elect=false", "--secure-port=0"]
        stages = harness.ROOT / "hack/bench/kwok.yaml"
        kwok = ["kwok", "--manage-all-nodes", f"--config={stages}", "--cidr=198.18.128.0/17"]
        kwok += ["--node-ip=127.0.0.1", "--node-lease-duration-seconds=40"]
        commands = {
            "scheduler": [*scheduler, f"--kubeconfig={config}"],
            "kwok": [*kwok, f"--kubeconfig={config}", f"--server-address=127.0.0.1:{port}"],
        }
        try:
            for name, command in commands.items():
                started.append(harness.start(command, folder / f"{name}.log"))
            asyncio.run(_install(server, nodes))
            yield server
        finally:
            for process in started:
                harness.end(process)


async def _install(server: ApiServer, nodes: int) -> None:
    """What an administrator has made: CRDs, namespaces, the operator's account, nodes."""
    async with connect(server.kubeconfig) as admin:
        for path in sorted((harness.ROOT / "charts/headway/crds").glob("*.yaml")):
            body = yaml.safe_load(path.read_text())
            await admin.apply(CRD, None, body["metadata"]["name"], body, field_manager="bench")
        for name in (SYSTEM, SPACE, CANARIES):
            await admin.create(NAMESPACE, None, {"metadata": {"name": name}})
        await admin.create(SERVICE_ACCOUNT, SYSTEM, {"metadata": {"name": ACCOUNT}})
        await admin.create(
            BINDING,
            None,
            {
                "metadata": {"name": ACCOUNT},
                "roleRef": {
                    "apiGroup": BINDING.group,
                    "kind": "ClusterRole",
                    "name": "cluster-admin",
                },
                "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": SYSTEM}],
            },
        )
        room = {"cpu": "1000", "memory": "1Ti", "pods": "10000"}
        for number in range(nodes):
            body = {
                "metadata": {"name": f"node-{number}"},
                "status": {"allocatable": room, "capacity": room},
            }
            await admin.create(NODE, None, body)


# --- the operator ---------------------------------------------------------------------------------


@dataclass
class Operator:
    """A running replica of the operator."""

    process: subprocess.Popen[bytes]
    probes: int
    log: Path

    @classmethod
    async def start(cls, server: ApiServer, admin: KubeApi, folder: Path, name: str) -> Operator:
        """Start it, and wait until it leads.

        Raises:
            TimeoutError: it does not.
        """
        token = await admin.create_token(SYSTEM, ACCOUNT, audience=ISSUER)
        probes, endpoint = free_ports(2)
        env = {
            "KUBECONFIG": str(server.kubeconfig_for(token, name)),
            "HEADWAY_NAMESPACE": SYSTEM,
            "HEADWAY_POD_NAME": name,
            "HEADWAY_POD_IP": "127.0.0.1",
            "HEADWAY_BIND_ADDRESS": "127.0.0.1",
            "HEADWAY_ENDPOINT_URL": "https://headway.bench:8443",
            "HEADWAY_ENDPOINT_PORT": str(endpoint),
            "HEADWAY_PROBES_PORT": str(probes),
            "HEADWAY_LOG_FORMAT": "plain",
            "PYTHONPATH": os.pathsep.join(str(harness.ROOT / at) for at in ("crds", "operator")),
        }
        log = folder / f"{name}.log"
        command = [sys.executable, "-m", "headway_operator"]
        self = cls(harness.start(command, log, env), probes, log)
        try:
            await _wait(f"{name} to lead", self._leads, START_SECONDS)
        except TimeoutError:
            harness.end(self.process)
            raise RuntimeError(f"{name} does not lead:\n{harness.tail(log)}") from None
        return self

    async def _leads(self) -> bool:
        async with aiohttp.ClientSession() as session:
            with suppress(aiohttp.ClientError):
                async with session.get(f"http://127.0.0.1:{self.probes}/readyz") as answer:
                    return answer.status == 200
        return False

    async def suggestions(self) -> tuple[float, float]:
        """How many there were, and the seconds that they took together."""
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"http://127.0.0.1:{self.probes}/metrics") as answer,
        ):
            text = await answer.text()
        found = {"count": 0.0, "sum": 0.0}
        for family in text_string_to_metric_families(text):
            if family.name == "headway_suggestion_seconds":
                for sample in family.samples:
                    if (what := sample.name.rpartition("_")[2]) in found:
                        found[what] += sample.value
        return found["count"], found["sum"]

    def cpu_seconds(self) -> dict[int, float]:
        """By process, those included that it has started."""
        found = {}
        for each in harness.tree(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                times = each.cpu_times()
                found[each.pid] = times.user + times.system
        return found

    def megabytes(self) -> dict[int, float]:
        """Resident memory, by process."""
        found = {}
        for each in harness.tree(self.process.pid):
            with suppress(psutil.NoSuchProcess):
                found[each.pid] = each.memory_info().rss / 1e6
        return found

    async def kill(self) -> list[int]:
        """SIGKILL for the operator alone; the processes of its that live on after 5 seconds."""
        others = harness.tree(self.process.pid)[1:]
        self.process.kill()
        self.process.wait()
        left = await asyncio.to_thread(psutil.wait_procs, others, 5)
        for each in left[1]:
            each.kill()
        return [each.pid for each in left[1]]


async def _wait(what: str, condition: Any, seconds: float) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := await condition()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"waited {seconds:g} s for {what}")
        await asyncio.sleep(0.1)
    return found


# --- the kubelet ----------------------------------------------------------------------------------


@dataclass
class Kubelet:
    """Ends running pods as their agents would.

    Attributes:
        admin: With whose rights.
        abreast: Trials of the sweep that have to run, or be all that are left, before the oldest
            of them ends: then they end in the order of their numbers. None: each ends at once.
        trials: Of the sweep.
        seen: When a job's first pod was there, by namespace and job.
        ended: Trials that have ended, in that order.
    """

    admin: KubeApi
    trials: int
    abreast: int | None = None
    seen: dict[tuple[str, str], float] = field(default_factory=dict)
    ended: list[int] = field(default_factory=list)
    _running: dict[int, Object] = field(default_factory=dict)
    _todo: asyncio.Queue[Object] = field(default_factory=asyncio.Queue)
    _done: set[str] = field(default_factory=set)

    def observe(self, kind: str, pod: Object) -> None:
        """A change of a pod that a watch tells."""
        metadata = pod["metadata"]
        place = (metadata["namespace"], metadata["labels"][contract.LABEL_JOB])
        self.seen.setdefault(place, time.monotonic())
        running = (pod.get("status") or {}).get("phase") == "Running" and kind != "DELETED"
        if not running or metadata["uid"] in self._done:
            return
        if self.abreast is None or metadata["namespace"] != SPACE:
            self._end(pod)
            return
        self._running[int(metadata["labels"][contract.LABEL_JOB].rpartition("-")[2])] = pod
        self._end_the_oldest(self.abreast)

    def _end_the_oldest(self, abreast: int) -> None:
        while self._running and len(self._running) >= min(abreast, self.trials - len(self.ended)):
            oldest = min(self._running)
            self.ended.append(oldest)
            self._end(self._running.pop(oldest))

    def _end(self, pod: Object) -> None:
        self._done.add(pod["metadata"]["uid"])
        self._todo.put_nowait(pod)

    async def work(self) -> None:
        """End pods until cancelled."""
        while True:
            pod = await self._todo.get()
            metadata = pod["metadata"]
            with suppress(NotFound):
                await self.admin.patch(
                    POD,
                    metadata["namespace"],
                    metadata["name"],
                    {"status": _ended(pod)},
                    subresource="status",
                )


def _ended(pod: Object) -> Object:
    """The status of a pod whose agent has nothing more to do."""
    (container,) = pod["spec"]["containers"]
    terminated = {
        "exitCode": 0,
        "reason": "Completed",
        "message": _last_words(pod["metadata"]["uid"], container["env"]).model_dump_json(),
    }
    return {
        "phase": "Succeeded",
        "containerStatuses": [
            {
                "name": contract.CONTAINER,
                "image": container["image"],
                "imageID": "",
                "ready": False,
                "restartCount": 0,
                "state": {"running": None, "terminated": terminated},
            }
        ],
    }


def _last_words(uid: str, variables: Sequence[Mapping[str, str]]) -> TerminationReport:
    """Those of an agent after 100 steps, whose script has reported the problem's value."""
    env = {each["name"]: each.get("value", "") for each in variables}
    params = json.loads(env[contract.ENV_PARAMETERS])
    trained = PROBLEM.values(params, 0) if "lr" in params else ()
    progress = ProgressReport(
        session=uid,
        attempt=int(env[contract.ENV_ATTEMPT]),
        generation=1,
        state="Done",
        step=100,
        observations=[report("loss", 100, value) for value in trained],
    )
    return TerminationReport(reason="Done", exit_code=0, progress=progress)


@asynccontextmanager
async def _beside(*parts: Coroutine[Any, Any, None]) -> AsyncIterator[None]:
    """Coroutines that go on until the end of the block; if one fails, the block does."""
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(part) for part in parts]
        yield
        for task in tasks:
            task.cancel()


# --- what is measured -----------------------------------------------------------------------------


@dataclass
class Watched:
    """What is seen of a sweep while it runs.

    Attributes:
        status_bytes: Its status as JSON, each second.
        megabytes: The most that each process of the operator had.
        suggestions: Count and seconds so far, each second.
        canaries: Seconds from making a job beside the sweep to its pod.
    """

    status_bytes: list[int] = field(default_factory=list)
    megabytes: dict[int, float] = field(default_factory=dict)
    suggestions: list[tuple[float, float]] = field(default_factory=list)
    canaries: list[float] = field(default_factory=list)

    async def look(self, admin: KubeApi, operator: Operator, name: str) -> None:
        """Look each second."""
        while True:
            sweep = await admin.get(SWEEP, SPACE, name)
            self.status_bytes.append(len(json.dumps(sweep.get("status") or {})))
            self.suggestions.append(await operator.suggestions())
            for pid, used in operator.megabytes().items():
                self.megabytes[pid] = max(used, self.megabytes.get(pid, 0.0))
            await asyncio.sleep(1.0)

    async def send_canaries(self, admin: KubeApi, kubelet: Kubelet, prefix: str) -> None:
        """Make a job now and then, and see how long it waits for its pod."""
        number = 0
        while True:
            name = f"{prefix}-{number}"
            began = time.monotonic()
            body = {"metadata": {"name": name}, "spec": _template()}
            await admin.create(TRAINING_JOB, CANARIES, body)
            place = (CANARIES, name)
            await _wait(f"the pod of {name}", lambda at=place: _true(at in kubelet.seen), 60)
            self.canaries.append(kubelet.seen[place] - began)
            number += 1
            await asyncio.sleep(CANARY_SECONDS)

    def recent_suggestion_ms(self, share: float = 0.1) -> float | None:
        """Mean milliseconds of the last suggestions, so large a part of all."""
        if not self.suggestions or not self.suggestions[-1][0]:
            return None
        count, seconds = self.suggestions[-1]
        before = max(s for s in self.suggestions if s[0] <= (1 - share) * count)
        return 1000 * (seconds - before[1]) / (count - before[0])


async def _true(value: bool) -> bool:
    return value


def _template(*args: str) -> Object:
    return {"image": "none", "command": ["train", *args], "workers": {"replicas": 1}}


def _sweep(name: str, trials: int, parallel: int) -> Object:
    args = [f"--{each.name}=${{params.{each.name}}}" for each in PROBLEM.parameters]
    return {
        "metadata": {"name": name},
        "spec": {
            "parameters": [each.wire() for each in PROBLEM.parameters],
            "objectives": [{"metric": "loss"}],
            "maxTrials": trials,
            "parallelTrials": parallel,
            "seed": 1,
            "template": {"spec": _template(*args)},
        },
    }


async def _until_over(admin: KubeApi, operator: Operator, name: str, seconds: float) -> None:
    status: Object = {}

    async def over() -> bool:
        if operator.process.poll() is not None:
            raise RuntimeError(f"the operator has ended:\n{harness.tail(operator.log)}")
        nonlocal status
        status = (await admin.get(SWEEP, SPACE, name)).get("status") or {}
        return status.get("phase") in {"Succeeded", "Failed"}

    try:
        await _wait(f"the end of sweep {name}", over, seconds)
    except TimeoutError as error:
        raise TimeoutError(f"{error}: {status.get('reason')}: {status.get('message')}") from None
    if status["phase"] != "Succeeded":
        raise RuntimeError(f"sweep {name}: {status.get('reason')}: {status.get('message')}")


@asynccontextmanager
async def _kubelet(
    admin: KubeApi, trials: int, abreast: int | None = None
) -> AsyncIterator[Kubelet]:
    kubelet = Kubelet(admin, trials, abreast)
    pods = Reflector(admin, POD, kubelet.observe, label_selector=contract.LABEL_JOB)
    async with _beside(pods.run(), *(kubelet.work() for _ in range(8))):
        yield kubelet


# --- the two sweeps -------------------------------------------------------------------------------


async def large(server: ApiServer, folder: Path, trials: int, parallel: int) -> dict[str, Any]:
    """One sweep from its first trial to its last, each as short as the cluster lets it be."""
    name, watched, idle = "large", Watched(), Watched()
    async with connect(server.kubeconfig) as admin, _kubelet(admin, trials) as kubelet:
        operator = await Operator.start(server, admin, folder, "large")
        try:
            async with _beside(idle.send_canaries(admin, kubelet, "idle")):
                await _wait("canaries", lambda: _true(len(idle.canaries) >= 3), 60)
            cpu, began = operator.cpu_seconds(), time.monotonic()
            await admin.create(SWEEP, SPACE, _sweep(name, trials, parallel))
            watching = watched.look(admin, operator, name)
            async with _beside(watching, watched.send_canaries(admin, kubelet, "busy")):
                await _until_over(admin, operator, name, 4.0 * trials)
            took = time.monotonic() - began
            watched.suggestions.append(await operator.suggestions())
            used = {
                pid: seconds - cpu.get(pid, 0.0) for pid, seconds in operator.cpu_seconds().items()
            }
            jobs = (await admin.list(TRAINING_JOB, namespace=SPACE)).items
        finally:
            harness.end(operator.process)
    main = operator.process.pid
    count, seconds = watched.suggestions[-1]
    return {
        "trials": len(jobs),
        "seconds": took,
        "trials_per_second": len(jobs) / took,
        "suggestion_ms": 1000 * seconds / max(count, 1),
        "last_tenth_suggestion_ms": watched.recent_suggestion_ms(),
        "status_bytes": max(watched.status_bytes),
        "operator_cpu_ms_per_trial": 1000 * used.pop(main) / len(jobs),
        "search_cpu_ms_per_trial": 1000 * sum(used.values()) / len(jobs),
        "operator_mb": watched.megabytes.pop(main),
        "search_mb": max(watched.megabytes.values(), default=None),
        "pod_of_a_new_job_idle_ms": 1000 * (harness.median(idle.canaries) or 0.0),
        "pod_of_a_new_job_p50_ms": 1000 * (harness.median(watched.canaries) or 0.0),
        "pod_of_a_new_job_p99_ms": 1000 * (harness.percentile(watched.canaries, 0.99) or 0.0),
        **writes(server.writes(), len(jobs)),
    }


def writes(entries: Sequence[Mapping[str, Any]], trials: int) -> dict[str, Any]:
    """The operator's writes for each trial, by what they did; refused ones apart."""
    found: Counter[str] = Counter()
    refused = 0
    for entry in entries:
        what = entry["objectRef"]
        if entry["user"]["username"] != USER or what.get("namespace") != SPACE:
            continue
        if entry["responseStatus"]["code"] >= 300:
            refused += 1
            continue
        resource = "/".join(filter(None, (what["resource"], what.get("subresource"))))
        found[f"{entry['verb']} {resource}"] += 1
    return {
        "writes_per_trial": sum(found.values()) / trials,
        "writes": {name: count / trials for name, count in found.most_common()},
        "refused_writes": refused,
    }


async def killed(server: ApiServer, folder: Path, trials: int, parallel: int) -> dict[str, Any]:
    """The same sweep twice, once with an operator that is killed in the middle of it.

    Trials end in the order of their numbers, so that both have to try the same.
    """
    plain = await _in_order(server, folder, "plain", trials, parallel, kill=False)
    broken = await _in_order(server, folder, "killed", trials, parallel, kill=True)
    return {
        "trials": len(broken.params),
        "lost": len(plain.params.keys() - broken.params.keys()),
        "made_twice": broken.made - len(broken.params),
        "changed": sum(broken.params.get(each) != plain.params[each] for each in plain.params),
        "left_processes": len(broken.left),
        "seconds_to_go_on": broken.pause,
    }


@dataclass
class _Course:
    params: dict[int, Any]
    made: int
    left: list[int] = field(default_factory=list)
    pause: float | None = None


async def _in_order(
    server: ApiServer, folder: Path, name: str, trials: int, parallel: int, *, kill: bool
) -> _Course:
    course = _Course({}, 0)
    async with connect(server.kubeconfig) as admin, _kubelet(admin, trials, parallel) as kubelet:
        operator = await Operator.start(server, admin, folder, name)
        try:
            await admin.create(SWEEP, SPACE, _sweep(name, trials, parallel))
            if kill:
                half = trials // 2
                await _wait("half of the trials", lambda: _true(len(kubelet.ended) >= half), 600)
                course.left, died = await operator.kill(), time.monotonic()
                before = len(kubelet.seen)
                operator = await Operator.start(server, admin, folder, f"{name}-again")
                await _wait("the next trial", lambda: _true(len(kubelet.seen) > before), 60)
                course.pause = time.monotonic() - died
            await _until_over(admin, operator, name, 4.0 * trials + 120)
        finally:
            harness.end(operator.process)
        selector = f"{contract.LABEL_SWEEP}={name}"
        jobs = (await admin.list(TRAINING_JOB, namespace=SPACE, label_selector=selector)).items
    for job in jobs:
        metadata = job["metadata"]
        told = json.loads(metadata["annotations"][contract.ANNOTATION_TRIAL])
        course.params[int(metadata["labels"][contract.LABEL_TRIAL])] = told["params"]
    course.made = _made(server, name)
    return course


def _made(server: ApiServer, sweep: str) -> int:
    """TrainingJobs of a sweep that were ever made."""
    return sum(
        entry["verb"] == "create"
        and entry["objectRef"]["resource"] == TRAINING_JOB.plural
        and str(entry["objectRef"].get("name")).rpartition("-")[0] == sweep
        and entry["responseStatus"]["code"] < 300
        for entry in server.writes()
    )


def main(
    trials: Annotated[int, typer.Option(help="Of the large sweep.")] = 1000,
    parallel: Annotated[int, typer.Option(help="Trials side by side.")] = 20,
    kill_trials: Annotated[
        int, typer.Option(help="Of the sweep whose operator is killed.", min=16)
    ] = 60,
    nodes: Annotated[int, typer.Option(help="Nodes that kwok plays.")] = 10,
    keep: Annotated[Path | None, typer.Option(help="Folder for logs, which stays.")] = None,
    quick: Annotated[bool, typer.Option(help="100 trials, and 20 with a kill.")] = False,
) -> None:
    """Run a sweep of a thousand trials by the operator on a real API server, and kill one midway.

    etcd, kube-apiserver, kube-controller-manager, kube-scheduler and kwok have to be on PATH.

    For example:

        make bench-sweep-scale

        make bench-sweep-scale ARGS="--trials 200 --keep /tmp/logs"
    """
    missing = missing_binaries(*BINARIES)
    if missing:
        sys.exit(f"not on PATH: {', '.join(missing)}")
    if quick:
        trials, kill_trials = min(trials, 100), min(kill_trials, 20)
    results: harness.Results = {}
    with harness.workspace("sweep-scale", keep) as folder, harness.Bar(2) as bar:
        with bar.doing(f"a sweep of {trials} trials"), _cluster(folder, nodes) as server:
            results["large"] = uvloop.run(large(server, folder, trials, parallel))
        with bar.doing(f"{kill_trials} trials, twice"), _cluster(folder, nodes) as server:
            results["killed"] = uvloop.run(killed(server, folder, kill_trials, 4))
    harness.show("A sweep on a real API server", results)


if __name__ == "__main__":
    harness.run(main)
