"""Jobs in folders of their own."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest
from hack.seaweed import SeaweedServer
from local_runs import Job, MakeJob
from sweep_runs import SweepRun


@pytest.fixture
def job(tmp_path: Path) -> Iterator[MakeJob]:
    """Makes jobs: `job(command, replicas=2, env={...}, **spec)`."""
    made: list[Job] = []

    def make(
        command: Sequence[str],
        *,
        replicas: int = 2,
        env: Mapping[str, str] | None = None,
        limits: Mapping[str, str] | None = None,
        **spec: Any,
    ) -> Job:
        folder = tmp_path / str(len(made))
        folder.mkdir()
        workers: dict[str, Any] = {"replicas": replicas}
        if limits:
            workers["resources"] = {"limits": dict(limits)}
        manifest = {
            "apiVersion": "headway.dev/v1alpha1",
            "kind": "TrainingJob",
            "metadata": {"name": "t"},
            "spec": {"command": list(command), "workers": workers, **spec},
        }
        made.append(Job(folder, manifest, dict(env or {})))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def sweep(tmp_path: Path) -> Iterator[Callable[..., SweepRun]]:
    """Makes sweeps of manifests: `sweep(manifest, env={...})`."""
    made: list[SweepRun] = []

    def make(manifest: dict[str, Any], env: Mapping[str, str] | None = None) -> SweepRun:
        folder = tmp_path / f"sweep-{len(made)}"
        folder.mkdir()
        made.append(SweepRun(folder, manifest, dict(env or {})))
        return made[-1]

    yield make
    for each in made:
        each.end()


@pytest.fixture
def own_seaweed(tmp_path: Path) -> Iterator[SeaweedServer]:
    """An S3 server that a test may take away."""
    with SeaweedServer(tmp_path / "s3", access_key="test-access", secret_key="secret") as server:
        yield server
