"""A Kubernetes control plane for tests: etcd and kube-apiserver on free ports of 127.0.0.1.

    with api_server() as server:
        ...  # server.kubeconfig, server.url, server.token, server.ca_file, server.audit_log

The binaries are looked for in `$HEADWAY_KUBE_BIN` and on PATH. Everything lives in a temporary
folder and ends with the block. RBAC, service-account tokens, API priority and fairness are on;
there are no nodes, and no controllers but those asked for. Run as a script it stays up until
Ctrl-C.
"""

import json
import os
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

ISSUER = "https://kubernetes.default.svc"
START_SECONDS = 60.0
STOP_SECONDS = 10.0
_ADMIN_TOKEN = "headway-test-admin"
_AUDIT_POLICY = {
    "apiVersion": "audit.k8s.io/v1",
    "kind": "Policy",
    "omitStages": ["RequestReceived"],
    "rules": [
        {"level": "Metadata", "verbs": ["create", "update", "patch", "delete", "deletecollection"]},
        {"level": "None"},
    ],
}


@dataclass(frozen=True)
class ApiServer:
    """A running API server and how to reach it as its administrator.

    Attributes:
        url: base URL.
        ca_file: certificates that sign its own.
        token: bearer token of user `admin` in `system:masters`.
        kubeconfig: of that user.
        audit_log: JSON lines, one for each write (see `writes`).
    """

    url: str
    ca_file: Path
    token: str
    kubeconfig: Path
    audit_log: Path

    def kubeconfig_for(self, token: str, name: str) -> Path:
        """Write a kubeconfig for another token, beside the administrator's."""
        path = self.kubeconfig.with_name(f"{name}.kubeconfig")
        path.write_text(json.dumps(_kubeconfig(self.url, self.ca_file, token)))
        return path

    def writes(self) -> list[dict[str, Any]]:
        """The audit events of all writes so far, oldest first."""
        if not self.audit_log.exists():
            return []
        # The last line may be half written.
        *complete, _ = self.audit_log.read_bytes().split(b"\n")
        return [json.loads(line) for line in complete]


def missing_binaries(*names: str) -> list[str]:
    """Which of these (by default etcd and kube-apiserver) cannot be found."""
    return [name for name in names or ("etcd", "kube-apiserver") if _which(name) is None]


@contextmanager
def api_server(*, controllers: Sequence[str] = ()) -> Iterator[ApiServer]:
    """Start an empty control plane, and stop it at the end of the block.

    Args:
        controllers: names of controllers that kube-controller-manager shall run, such as
            `garbage-collector-controller` or `serviceaccount-controller`.

    Raises:
        RuntimeError: a binary is missing, or a part did not start; the message has its last words.
    """
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="apiserver-")))
        etcd_port, peer_port, port = free_ports(3)
        etcd_url = f"http://127.0.0.1:{etcd_port}"
        stack.enter_context(_process(folder, "etcd", _etcd_flags(folder, etcd_url, peer_port)))
        server = _describe(folder, port)
        flags = _apiserver_flags(folder, etcd_url, port)
        running = stack.enter_context(_process(folder, "kube-apiserver", flags))
        _await_ready(server, running, folder)
        if controllers:
            flags = _controller_flags(folder, server.kubeconfig, controllers)
            stack.enter_context(_process(folder, "kube-controller-manager", flags))
        yield server


def _describe(folder: Path, port: int) -> ApiServer:
    """Write what the server reads at its start and what its clients need."""
    ca_file = folder / "pki" / "apiserver.crt"  # the server makes and signs it itself
    url = f"https://127.0.0.1:{port}"
    (folder / "tokens.csv").write_text(f'{_ADMIN_TOKEN},admin,1,"system:masters"\n')
    (folder / "audit.yaml").write_text(json.dumps(_AUDIT_POLICY))
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    (folder / "sa.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.TraditionalOpenSSL,
            serialization.NoEncryption(),
        )
    )
    kubeconfig = folder / "admin.kubeconfig"
    kubeconfig.write_text(json.dumps(_kubeconfig(url, ca_file, _ADMIN_TOKEN)))
    return ApiServer(url, ca_file, _ADMIN_TOKEN, kubeconfig, folder / "audit.log")


def _etcd_flags(folder: Path, url: str, peer_port: int) -> list[str]:
    peer_url = f"http://127.0.0.1:{peer_port}"
    return [
        f"--data-dir={folder / 'etcd'}",
        f"--listen-client-urls={url}",
        f"--advertise-client-urls={url}",
        f"--listen-peer-urls={peer_url}",
        f"--initial-advertise-peer-urls={peer_url}",
        f"--initial-cluster=default={peer_url}",
        "--unsafe-no-fsync",
        "--log-level=warn",
    ]


def _apiserver_flags(folder: Path, etcd_url: str, port: int) -> list[str]:
    return [
        f"--etcd-servers={etcd_url}",
        "--bind-address=127.0.0.1",
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--secure-port={port}",
        f"--cert-dir={folder / 'pki'}",
        f"--token-auth-file={folder / 'tokens.csv'}",
        f"--service-account-issuer={ISSUER}",
        f"--service-account-key-file={folder / 'sa.key'}",
        f"--service-account-signing-key-file={folder / 'sa.key'}",
        "--service-cluster-ip-range=198.18.0.0/20",
        "--authorization-mode=RBAC",
        "--allow-privileged=true",
        f"--audit-policy-file={folder / 'audit.yaml'}",
        f"--audit-log-path={folder / 'audit.log'}",
    ]


def _controller_flags(folder: Path, kubeconfig: Path, controllers: Sequence[str]) -> list[str]:
    return [
        f"--kubeconfig={kubeconfig}",
        f"--controllers={','.join(controllers)}",
        f"--service-account-private-key-file={folder / 'sa.key'}",
        "--leader-elect=false",
        "--secure-port=0",
    ]


def _kubeconfig(url: str, ca_file: Path, token: str) -> dict[str, object]:
    cluster = {"server": url, "certificate-authority": str(ca_file)}
    return {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "test",
        "clusters": [{"name": "test", "cluster": cluster}],
        "users": [{"name": "test", "user": {"token": token}}],
        "contexts": [{"name": "test", "context": {"cluster": "test", "user": "test"}}],
    }


@contextmanager
def _process(folder: Path, name: str, flags: Sequence[str]) -> Iterator[subprocess.Popen[bytes]]:
    """Run a part with its output in a file."""
    binary = _which(name)
    if binary is None:
        raise RuntimeError(f"no {name}: put it on PATH or set HEADWAY_KUBE_BIN to its folder")
    with (folder / f"{name}.log").open("wb") as log:
        process = subprocess.Popen([binary, *flags], stdout=log, stderr=subprocess.STDOUT)
    try:
        yield process
    finally:
        process.kill()  # the state is thrown away: nothing to end gently for
        process.wait(STOP_SECONDS)


def _await_ready(server: ApiServer, process: subprocess.Popen[bytes], folder: Path) -> None:
    deadline = time.monotonic() + START_SECONDS
    while not _is_ready(server):
        if process.poll() is not None or time.monotonic() > deadline:
            raise RuntimeError(f"kube-apiserver did not start:\n{_last_words(folder)}")
        time.sleep(0.05)


def _is_ready(server: ApiServer) -> bool:
    if not server.ca_file.exists():
        return False
    request = urllib.request.Request(
        f"{server.url}/readyz", headers={"Authorization": f"Bearer {server.token}"}
    )
    try:
        context = ssl.create_default_context(cafile=server.ca_file)
        with urllib.request.urlopen(request, timeout=5, context=context) as answer:
            return bool(answer.status == 200)
    except (urllib.error.URLError, OSError):
        return False


def _last_words(folder: Path) -> str:
    return "\n".join(
        f"== {log.name}\n{log.read_text(errors='replace')[-2000:]}"
        for log in sorted(folder.glob("*.log"))
    )


def _which(name: str) -> str | None:
    folders = [os.environ.get("HEADWAY_KUBE_BIN", ""), os.environ.get("PATH", "")]
    return shutil.which(name, path=os.pathsep.join(folder for folder in folders if folder))


def free_ports(count: int) -> list[int]:
    with ExitStack() as stack:
        sockets = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        return [int(one.getsockname()[1]) for one in sockets]


def main() -> None:
    """Keep a server up until interrupted."""
    with api_server() as server:
        print(f"export KUBECONFIG={server.kubeconfig}", flush=True)
        try:
            while True:
                time.sleep(3600)
        except KeyboardInterrupt:
            pass


if __name__ == "__main__":
    main()
