"""Real servers for the local tests, started once per session."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# `hack/` holds developer tools and is no package that gets installed.
sys.path.insert(0, str(Path(__file__).parents[2]))

from hack.seaweed import SeaweedServer


@pytest.fixture(scope="session")
def seaweed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SeaweedServer]:
    """A running S3 server. A test that stops it must start it again."""
    data_dir = tmp_path_factory.mktemp("seaweed")
    with SeaweedServer(data_dir, access_key="test-access", secret_key="test-secret") as server:
        yield server
