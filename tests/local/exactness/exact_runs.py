"""The script with one of everything: running it, and reading what it has computed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from local_runs import Job

from headway_api import contract

SCRIPTS = Path(__file__).parent / "scripts"
SCRIPT = str(SCRIPTS / "everything.py")
EPOCHS, STEPS_PER_EPOCH = 6, 4
STEPS = EPOCHS * STEPS_PER_EPOCH
SECONDS = 240


@dataclass(frozen=True)
class Trace:
    """What the ranks of a run have written."""

    folder: Path

    def of(self, rank: int) -> dict[str, set[str]]:
        """By step and epoch, all that was ever computed: two values are one too many."""
        found: dict[str, set[str]] = {}
        for line in self._lines(rank):
            what, number, *values = line.split()
            found.setdefault(f"{what} {number}", set()).add(" ".join(values))
        return found

    def orders(self) -> dict[str, set[str]]:
        """By step, the digest of all samples up to it."""
        steps = {key: values for key, values in self.of(0).items() if key.startswith("step")}
        return {key: {value.split()[1] for value in values} for key, values in steps.items()}

    def steps(self) -> list[int]:
        """The steps that rank 0 has computed, in their order."""
        return [int(line.split()[1]) for line in self._lines(0) if line.startswith("step")]

    @property
    def last_step(self) -> int:
        """The latest step of rank 0."""
        return (self.steps() or [0])[-1]

    def _lines(self, rank: int) -> list[str]:
        path = self.folder / f"trace.{rank}"
        return path.read_text().splitlines() if path.exists() else []


def environment(folder: Path) -> dict[str, str]:
    return {"TRACE": str(folder / "trace"), "OMP_NUM_THREADS": "1"}


def torchrun(folder: Path, ranks: int, **parameters: str) -> None:
    """Run the script without Headway's agent."""
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    settings = {contract.ENV_PARAMETERS: json.dumps(parameters)} if parameters else {}
    subprocess.run(
        [*command, f"--nproc-per-node={ranks}", SCRIPT],
        env={**os.environ, **environment(folder), **settings},
        check=True,
        timeout=SECONDS,
    )


def job(
    folder: Path, script: str = "everything.py", *, ranks: int, every: int = 1, **parameters: str
) -> Job:
    """A script as a job: one pod, so that torch is imported once."""
    spec = {
        "command": ["python", str(SCRIPTS / script)],
        "workers": {"replicas": 1, "processesPerWorker": ranks},
        "storage": {"uri": str(folder / "storage")},
        "checkpoint": {"everySteps": every},
        "parameters": {"loader_workers": "2", **parameters},
        "failurePolicy": {"maxRestarts": 50},
    }
    manifest = {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "t"},
        "spec": spec,
    }
    return Job(folder, manifest, environment(folder))
