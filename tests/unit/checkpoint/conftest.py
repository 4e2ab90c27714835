from __future__ import annotations

from pathlib import Path

import pytest

from headway.checkpoint.stores import Store, open_store


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return open_store(str(tmp_path / "job"))


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Where `store` keeps its objects, for tests that damage them."""
    return tmp_path / "job"
