"""`headway run` as a user runs it: a manifest, a process, an exit status, an object."""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import psutil
import pytest
import yaml
from hack.seaweed import SeaweedServer

from headway_api import contract

SCRIPTS = Path(__file__).with_name("scripts")
_MARK = "HEADWAY_TEST_MARK"
T = TypeVar("T")
needs_horovod = pytest.mark.skipif(
    importlib.util.find_spec("horovod") is None, reason="Horovod is missing: make horovod"
)


def wait_for(what: str, probe: Callable[[], T], seconds: float = 120) -> T:
    """Poll until `probe` gives something true."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if found := probe():
            return found
        time.sleep(0.05)
    raise AssertionError(f"waited {seconds:g} s for {what}")


@dataclass(frozen=True)
class Outcome:
    """How a run ended."""

    code: int
    job: dict[str, Any]
    shown: str

    @property
    def status(self) -> dict[str, Any]:
        """Status of the final object."""
        return self.job.get("status") or {}

    @property
    def phase(self) -> str:
        """Phase of the final object."""
        return str(self.status.get("phase"))

    @property
    def restarts(self) -> dict[str, Any]:
        """Its restarts; the last one under `last`."""
        return self.status.get("restarts") or {}


@dataclass
class Job:
    """A manifest in a folder, and the `headway run` processes that work on it."""

    folder: Path
    manifest: dict[str, Any]
    env: dict[str, str] = field(default_factory=dict)
    others: list[dict[str, Any]] = field(default_factory=list)
    mark: str = field(default_factory=lambda: uuid.uuid4().hex)
    process: subprocess.Popen[str] | None = None
    prefix: list[str] = field(default_factory=list)
    """Put before the command, such as `unshare`; it has to `exec` it."""
    verb: tuple[str, ...] = ("run",)
    """The command of `headway`."""

    def write(self) -> Path:
        """Write the manifest as it is now."""
        file = self.folder / "job.yaml"
        file.write_text(yaml.safe_dump_all([*self.others, self.manifest]))
        return file

    def start(self, *options: str) -> Job:
        """Start `headway run`."""
        file = self.write()
        command = [sys.executable, "-m", "headway.cli", *self.verb, "-f", str(file), "-o", "json"]
        with (self.folder / "stderr").open("w") as errors:
            self.process = subprocess.Popen(
                [*self.prefix, *command, "--state", str(self.folder / "state"), *options],
                cwd=self.folder,
                env={**os.environ, **self.env, _MARK: self.mark},
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
        return self

    def finish(self, seconds: float = 120) -> Outcome:
        """Wait for the end of the run; nothing of it may be left."""
        assert self.process is not None
        try:
            out, _ = self.process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"still running after {seconds:g} s; it showed:\n{self.shown[-3000:]}")
        left = self.processes()
        assert not left, f"left behind: {left}"
        return Outcome(self.process.returncode, json.loads(out) if out else {}, self.shown)

    def run(self, *options: str, seconds: float = 120) -> Outcome:
        """Start, and wait for the end."""
        return self.start(*options).finish(seconds)

    @property
    def shown(self) -> str:
        """What it has written to stderr."""
        return (self.folder / "stderr").read_text()

    def processes(self) -> list[psutil.Process]:
        """Every live process of this job's runs, wherever it hangs in the process tree."""
        return [p for p in psutil.process_iter() if self._environ(p).get(_MARK) == self.mark]

    def agent(self, index: int) -> psutil.Process | None:
        """The agent of a worker pod."""
        return self._one(
            lambda env: env.get(contract.ENV_INDEX) == str(index) and "RANK" not in env
        )

    def worker(self, rank: int) -> psutil.Process | None:
        """The worker process of a rank."""
        return self._one(lambda env: env.get("RANK") == str(rank))

    def _one(self, fits: Callable[[Mapping[str, str]], bool]) -> psutil.Process | None:
        found = [p for p in self.processes() if fits(self._environ(p))]
        oldest = sorted(found, key=lambda p: p.create_time())
        return oldest[0] if oldest else None

    @staticmethod
    def _environ(process: psutil.Process) -> Mapping[str, str]:
        try:
            dead = process.status() == psutil.STATUS_ZOMBIE
            return {} if dead else process.environ()
        except psutil.Error:
            return {}

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to `headway run` itself."""
        assert self.process is not None
        self.process.send_signal(number)

    def logs(self, index: int) -> str:
        """Everything that the pods of this index have printed, oldest first."""
        name = f"{self.manifest['metadata']['name']}-{index}"
        files = (self.folder / "state" / "pods" / name).glob("*/log")
        return "".join(f.read_text() for f in sorted(files, key=lambda f: f.stat().st_ctime))

    def end(self) -> None:
        """End what a failed test has left."""
        for process in self.processes():
            process.kill()
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            if self.process.stdout is not None:
                self.process.stdout.close()


MakeJob = Callable[..., Job]


def python(code: str) -> list[str]:
    """A command that runs a few lines of Python."""
    return ["python", "-c", code]


def script(name: str) -> list[str]:
    """A command that runs one of the scripts beside these tests."""
    return ["python", str(SCRIPTS / name)]


def keys(server: SeaweedServer, **other: str) -> dict[str, str]:
    """Environment with the keys of a server."""
    return {
        "AWS_ACCESS_KEY_ID": server.access_key,
        "AWS_SECRET_ACCESS_KEY": server.secret_key,
        **other,
    }


def storage(server: SeaweedServer, uri: str) -> dict[str, Any]:
    """`spec.storage` for a server."""
    return {"uri": uri, "endpoint": server.endpoint, "region": "us-east-1"}


# --- what scripts that write their losses have written ------------------------------------------


def losses(folder: Path, rank: int) -> dict[int, set[str]]:
    """Every loss that a rank has computed, by step: more than one where it was done again."""
    found: dict[int, set[str]] = {}
    for line in (folder / f"losses.{rank}").read_text().splitlines():
        step, value = line.split()
        found.setdefault(int(step), set()).add(value)
    return found


def last_step(folder: Path) -> int:
    path = folder / "losses.0"
    lines = path.read_text().splitlines() if path.exists() else []
    return int(lines[-1].split()[0]) if lines and " " in lines[-1] else 0
