"""A real API server for the suites that must hold on one, shared by the whole run."""

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "hack"))

from apiserver import ApiServer, api_server, missing_binaries

NEEDED = ("etcd", "kube-apiserver", "kube-controller-manager")


@pytest.fixture(scope="session")
def api() -> Iterator[ApiServer]:
    """etcd, kube-apiserver and the garbage collector; skips where a binary is missing."""
    missing = missing_binaries(*NEEDED)
    if missing:
        pytest.skip(f"not on PATH or in HEADWAY_KUBE_BIN: {', '.join(missing)}")
    with api_server(controllers=["garbage-collector-controller"]) as server:
        yield server
