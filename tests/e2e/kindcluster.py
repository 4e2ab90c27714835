"""The kind cluster of the e2e tests: made by hack/kind-up.sh, and no other is ever touched."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")
Object = dict[str, Any]

ROOT = Path(__file__).parents[2]
NAME = "headway-e2e"
SYSTEM = "headway-system"
OPERATOR = "headway-operator"
ACCOUNT = f"system:serviceaccount:{SYSTEM}:{OPERATOR}"
KUBECONFIG = ROOT / f".headway/kind/{NAME}.kubeconfig"


def run(*command: str, stdin: str | None = None, timeout: float = 120) -> str:
    """Run a command in the repository's root; its output.

    Raises:
        AssertionError: it failed; the message has what it said.
    """
    done = subprocess.run(
        command, cwd=ROOT, input=stdin, text=True, capture_output=True, timeout=timeout, check=False
    )
    assert done.returncode == 0, f"{' '.join(command)}: {done.stderr or done.stdout}"
    return done.stdout


def wait_for(condition: Callable[[], T | None], seconds: float, what: str, every: float = 0.5) -> T:
    """Wait until a condition returns something true, and return it.

    Args:
        condition: asked again and again; an AssertionError in it counts as "not yet".
        seconds: how long at most.
        what: what is waited for, for the message.
        every: seconds between two tries.

    Raises:
        AssertionError: it did not come true in time.
    """
    deadline = time.monotonic() + seconds
    last: object = None
    while True:
        try:
            value = condition()
            if value:
                return value
            last = value
        except AssertionError as error:
            last = error
        assert time.monotonic() < deadline, f"not within {seconds:.0f} s: {what} (last: {last})"
        time.sleep(every)


@dataclass(frozen=True)
class Cluster:
    """The cluster, by kubectl."""

    def kubectl(self, *arguments: str, stdin: str | None = None) -> str:
        """Run kubectl against this cluster and no other."""
        own = ("--kubeconfig", str(KUBECONFIG), "--context", f"kind-{NAME}")
        return run("kubectl", *own, *arguments, stdin=stdin)

    def get(self, *arguments: str) -> Object:
        """`kubectl get … -o json`, parsed."""
        found: Object = json.loads(self.kubectl("get", *arguments, "--output=json"))
        return found

    def items(self, *arguments: str) -> list[Object]:
        """The items of a list."""
        found: list[Object] = self.get(*arguments)["items"]
        return found

    def apply(self, *objects: Object) -> None:
        """`kubectl apply` of these objects."""
        self.kubectl("apply", "--filename=-", stdin=_yaml_stream(objects))

    def can(self, verb: str, resource: str, *more: str) -> bool:
        """Whether the operator's account may do something."""
        own = ("--kubeconfig", str(KUBECONFIG), "--context", f"kind-{NAME}")
        asked = ("auth", "can-i", verb, resource, "--as", ACCOUNT, *more)
        done = subprocess.run(
            ("kubectl", *own, *asked), cwd=ROOT, text=True, capture_output=True, check=False
        )
        assert done.stdout.strip() in {"yes", "no"}, done.stderr
        return done.stdout.strip() == "yes"

    def leader(self) -> str:
        """Name of the operator pod that holds the Lease."""
        lease = self.get("lease", OPERATOR, "--namespace", SYSTEM)
        holder: str = lease["spec"].get("holderIdentity") or ""
        pods = self.items("pods", "--namespace", SYSTEM)
        return next((n for p in pods if (n := p["metadata"]["name"]) in holder), "")

    def wait_for_operator(self) -> None:
        """Wait until all replicas are ready."""
        self.kubectl(
            *("rollout", "status", f"deployment/{OPERATOR}"),
            *("--namespace", SYSTEM, "--timeout=120s"),
        )

    def audit(self, namespace: str) -> list[Object]:
        """The operator's successful writes since a namespace was made, in their order.

        hack/kind-audit.yaml says what the API server logs.
        """
        born = self.get("namespace", namespace)["metadata"]["creationTimestamp"].rstrip("Z")
        log = run("docker", "exec", f"{NAME}-control-plane", "cat", "/var/log/kubernetes/audit.log")
        entries = [json.loads(line) for line in log.splitlines()]
        return [
            entry
            for entry in entries
            if entry["objectRef"].get("namespace") == namespace
            and entry["requestReceivedTimestamp"] >= born
            and entry["responseStatus"]["code"] < 300
        ]


def _yaml_stream(objects: tuple[Object, ...]) -> str:
    return "\n---\n".join(json.dumps(item) for item in objects)  # JSON is YAML


def bring_up() -> Cluster:
    """Make the cluster or bring an existing one up to date.

    Raises:
        AssertionError: it failed, or the kubeconfig does not lead to this machine's cluster.
    """
    options = ("--no-example", "--horovod")
    run("hack/kind-up.sh", "--name", NAME, *_kubeconfig(), *options, timeout=1500)
    cluster = Cluster()
    view = json.loads(cluster.kubectl("config", "view", "--minify", "--output=json"))
    server = view["clusters"][0]["cluster"]["server"]
    assert server.startswith("https://127.0.0.1:"), f"{KUBECONFIG} leads elsewhere: {server}"
    return cluster


def tear_down() -> None:
    """Delete the cluster, unless HEADWAY_E2E_KEEP=1."""
    if os.environ.get("HEADWAY_E2E_KEEP") != "1":
        run("hack/kind-down.sh", "--name", NAME, *_kubeconfig())


def dump_logs(folder: Path) -> None:
    """Write objects, events and logs into a folder, for a person to read."""
    run("hack/kind-logs.sh", str(KUBECONFIG), str(folder))


def _kubeconfig() -> tuple[str, str]:
    return ("--kubeconfig", str(KUBECONFIG))
