"""Runs of one script, undisturbed and disturbed, and what they have computed."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

# The jobs of `tests/local/jobs`, which are used here too.
sys.path.insert(0, str(Path(__file__).parents[1] / "jobs"))

from exact_runs import Trace, torchrun
from local_runs import Job


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    """What two ranks compute without Headway's agent, so that nothing is saved or restored."""
    folder = tmp_path_factory.mktemp("undisturbed")
    torchrun(folder, ranks=2)
    return Trace(folder)


@pytest.fixture
def jobs() -> Iterator[list[Job]]:
    """Jobs that end with the test."""
    made: list[Job] = []
    yield made
    for each in made:
        each.end()
