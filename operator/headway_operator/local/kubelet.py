"""Runs the pods of the API server in memory as processes of this machine.

It does for a pod what a kubelet does, and no more: start it, report its state, end it with its
grace period, and confirm its deletion.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import logging
import os
import signal
import socket
import sys
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil

from headway_api import contract
from headway_operator.cluster.client import POD, ApiError, KubeClient, NotFound, Object
from headway_operator.local.podspec import IssueToken, Process, process, secret_names

log = logging.getLogger(__name__)
NODE = "this-machine"
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_COLLECT_SECONDS = 1.0
_MEMORY_CHECK_SECONDS = 0.2
_MESSAGE_BYTES = 4096
_TAIL_BYTES = 2048
_KILLED = 128 + signal.SIGKILL


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def _adopt_orphans() -> None:
    """Become the parent of every descendant that loses its own, so that none gets away."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def _own_memory(pid: int) -> int:
    """Bytes of a process as a cgroup counts them.

    What forked processes share is divided among them; pages of libraries, which can always be
    given back, don't count.
    """
    kinds = ("Pss_Anon:", "Pss_Shmem:")
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(kinds))


def _descendants() -> list[psutil.Process]:
    return psutil.Process().children(recursive=True)


def _pod_uid(process: psutil.Process) -> str | None:
    try:
        return process.environ().get(contract.ENV_POD_UID)
    except psutil.Error:
        return None


def address_of(ordinal: int) -> str:
    """A loopback address of a pod's own, so that pods can use the same ports as in a cluster."""
    return f"127.88.{ordinal // 250 % 250}.{ordinal % 250 + 1}"


class LocalPod:
    """One pod as a process."""

    def __init__(self, client: KubeClient, pod: Object, folder: Path, address: str) -> None:
        self._client = client
        self._pod = pod
        self._meta = pod["metadata"]
        self.folder = folder
        self.address = address
        self._process: asyncio.subprocess.Process | None = None
        self._started = _now()
        self._ended = asyncio.Event()
        self._oom = False
        self._stopping = False

    @property
    def pid(self) -> int | None:
        """Process id of the agent while it runs."""
        return self._process.pid if self._process else None

    async def run(self, plan: Process) -> None:
        """Start the process and follow it to its end."""
        log_file = self.folder / "log"
        with log_file.open("ab") as output:
            try:
                self._process = await asyncio.create_subprocess_exec(
                    *plan.command,
                    env={**_path_first(os.environ), **plan.env},
                    cwd=plan.working_dir,
                    stdin=asyncio.subprocess.DEVNULL,
                    stdout=output,
                    stderr=asyncio.subprocess.STDOUT,
                    start_new_session=True,
                    preexec_fn=_die_with_parent,
                )
            except OSError as error:
                await self._finish(1, str(error))
                return
        await self._report(self._running())
        guard = asyncio.create_task(self._guard_memory(plan.memory_limit))
        returncode = await self._process.wait()
        guard.cancel()
        await asyncio.to_thread(self._kill_all)
        code = returncode if returncode >= 0 else 128 - returncode
        await self._finish(code, self._last_words(log_file))

    async def stop(self, grace: float) -> None:
        """End the process: SIGTERM, and SIGKILL after `grace` seconds."""
        if self._stopping and grace:
            return
        self._stopping = True
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(signal.SIGTERM if grace else signal.SIGKILL)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._ended.wait(), grace)
            await asyncio.to_thread(self._kill_all)
        await self._ended.wait()

    async def ended(self) -> None:
        """Wait until nothing of it runs."""
        await self._ended.wait()

    async def lost(self) -> None:
        """Report a pod whose process went away with an earlier kubelet."""
        status = self._status("Failed", {"terminated": {"exitCode": _KILLED}}, ready=False)
        await self._report({**status, "reason": "NodeLost"})
        self._ended.set()

    def _kill_all(self) -> None:
        """Kill the agent, its workers and whatever they have started and left behind."""
        ours = [p for p in _descendants() if _pod_uid(p) == self._meta["uid"]]
        for each in ours:
            with contextlib.suppress(psutil.Error):
                each.kill()
        # The agent is collected by asyncio, its descendants by their parents or, here, by us.
        psutil.wait_procs([p for p in ours if p.pid != self.pid], timeout=_COLLECT_SECONDS)

    async def _guard_memory(self, limit: int | None) -> None:
        """Kill the pod when it uses more than its limit, as the kernel would."""
        if limit is None:
            return
        while True:
            await asyncio.sleep(_MEMORY_CHECK_SECONDS)
            if await asyncio.to_thread(self._memory) > limit:
                self._oom = True
                await asyncio.to_thread(self._kill_all)

    def _memory(self) -> int:
        try:
            root = psutil.Process(self.pid)
            return sum(_own_memory(p.pid) for p in (root, *root.children(recursive=True)))
        except (psutil.Error, OSError):
            return 0

    def _last_words(self, log_file: Path) -> str:
        try:
            return (self.folder / "termination").read_text()[:_MESSAGE_BYTES]
        except OSError:
            pass
        data = log_file.read_bytes()[-_TAIL_BYTES:]  # FallbackToLogsOnError
        return data.decode(errors="replace")

    def _running(self) -> Object:
        state = {"running": {"startedAt": self._started}}
        return self._status("Running", state, ready=True)

    async def _finish(self, code: int, message: str) -> None:
        reason = "Completed" if code == 0 else "Error"
        if self._oom:
            reason, code = "OOMKilled", _KILLED
        terminated = {
            "exitCode": code,
            "reason": reason,
            "message": message,
            "startedAt": self._started,
            "finishedAt": _now(),
        }
        phase = "Succeeded" if code == 0 else "Failed"
        await self._report(self._status(phase, {"terminated": terminated}, ready=False))
        self._ended.set()

    def _status(self, phase: str, state: Mapping[str, Any], *, ready: bool) -> Object:
        truth = "True" if ready else "False"
        return {
            "phase": phase,
            "podIP": self.address,
            "podIPs": [{"ip": self.address}],
            "startTime": self._started,
            "conditions": [
                {"type": "PodScheduled", "status": "True", "lastTransitionTime": self._started},
                {"type": "Ready", "status": truth, "lastTransitionTime": _now()},
            ],
            "containerStatuses": [
                {
                    "name": self._pod["spec"]["containers"][0]["name"],
                    "ready": ready,
                    "restartCount": 0,
                    "image": self._pod["spec"]["containers"][0].get("image", ""),
                    "state": dict(state),
                }
            ],
        }

    async def _report(self, status: Object) -> None:
        meta = self._meta
        body = {"metadata": {"uid": meta["uid"]}, "status": status}
        with contextlib.suppress(ApiError):
            await self._client.patch(
                POD, meta["namespace"], meta["name"], body, subresource="status"
            )


def _path_first(env: Mapping[str, str]) -> dict[str, str]:
    """The environment with this interpreter's folder first, so that `python` is this one."""
    here = str(Path(sys.executable).parent)
    return {**env, "PATH": f"{here}{os.pathsep}{env.get('PATH', '')}"}


class Kubelet:
    """Keeps the processes in step with the pods.

    Args:
        client: The API server.
        folder: Where the pods' files go: logs, termination messages, volumes.
        issue: Makes a pod's tokens: (pod, audience, seconds) → token.
        secret: Reads Secrets: (namespace, name) → data.
    """

    def __init__(self, client: KubeClient, folder: Path, issue: Any, secret: Any) -> None:
        self._client = client
        self._folder = folder
        self._issue = issue
        self._secret = secret
        self._pods: dict[str, LocalPod] = {}
        self._tasks: set[asyncio.Task[None]] = set()
        self._ordinal = os.getpid() % 1250 * 50  # other runs on this machine begin elsewhere

    def pod(self, uid: str) -> LocalPod | None:
        """The running pod with this UID."""
        return self._pods.get(uid)

    async def run(self) -> None:
        """Follow the pods until cancelled; then end every process."""
        _adopt_orphans()
        try:
            async for event in self._client.watch(POD):
                if event.type == "BOOKMARK":
                    continue
                self._observe(event.type, event.object)
        finally:
            await self.stop_all(0)

    async def drained(self) -> None:
        """Wait until no pod runs."""
        await asyncio.gather(*(pod.ended() for pod in self._pods.values()))

    async def stop_all(self, grace: float) -> None:
        """End all pods, each within so many seconds."""
        await asyncio.gather(*(pod.stop(grace) for pod in self._pods.values()))

    def _observe(self, event: str, pod: Object) -> None:
        meta, known = pod["metadata"], self._pods.get(pod["metadata"]["uid"])
        if event == "DELETED":
            if known is not None:
                self._spawn(known.stop(0))
        elif meta.get("deletionTimestamp"):
            self._spawn(self._end(pod, known))
        elif known is None and pod.get("status", {}).get("phase", "Pending") == "Pending":
            self._spawn(self._start(pod))
        elif known is None and pod["status"]["phase"] == "Running":
            self._spawn(self._lost(pod))

    async def _start(self, pod: Object) -> None:
        meta = pod["metadata"]
        folder = self._folder / meta["name"] / meta["uid"]
        folder.mkdir(parents=True, exist_ok=True)
        local = LocalPod(self._client, pod, folder, self._free_address())
        self._pods[meta["uid"]] = local
        await self._bind(meta["namespace"], meta["name"])
        issue: IssueToken = lambda audience, seconds: self._issue(pod, audience, seconds)  # noqa: E731
        secrets = {n: await self._secret(meta["namespace"], n) for n in secret_names(pod)}
        plan = process(pod, folder, local.address, issue, secrets.get)
        await local.run(plan)

    def _free_address(self) -> str:
        while True:
            self._ordinal += 1
            address = address_of(self._ordinal)
            with socket.socket() as probe, contextlib.suppress(OSError):
                probe.bind((address, contract.AGENT_PORT))
                return address

    async def _bind(self, namespace: str, name: str) -> None:
        bind = getattr(self._client, "bind", None)
        if bind is not None:
            with contextlib.suppress(ApiError):
                bind(namespace, name, NODE)

    async def _end(self, pod: Object, known: LocalPod | None) -> None:
        meta = pod["metadata"]
        if known is not None:
            await known.stop(float(meta.get("deletionGracePeriodSeconds") or 0))
        with contextlib.suppress(NotFound, ApiError):
            await self._client.delete(
                POD, meta["namespace"], meta["name"], uid=meta["uid"], grace_seconds=0
            )

    async def _lost(self, pod: Object) -> None:
        """A pod of an earlier life of this kubelet, whose process is gone with it."""
        meta = pod["metadata"]
        local = LocalPod(self._client, pod, self._folder / meta["name"] / meta["uid"], "")
        self._pods[meta["uid"]] = local
        await local.lost()

    def _spawn(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
