"""Verifying a checkpoint where it lies: every byte of every object, keeping none."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial

from .errors import CorruptCheckpoint, ObjectMissing
from .manifest import Commit, Part
from .ranges import Range, plan, twice, verified
from .reader import read_rank_state
from .state import TensorSpec
from .stores import Store


def verify(
    store: Store, commit: Commit, progress: Callable[[int], object] = lambda _: None
) -> dict[str, str]:
    """Read every byte of a checkpoint.

    Args:
        store: the job's root.
        commit: what to verify.
        progress: told how many more bytes of parts have been read; from several threads.

    Returns:
        What is wrong, by the key of each object that is not as committed.

    Raises:
        StoreError: the store refused or failed.
    """
    specs = {spec.name: spec for spec in commit.tensors}

    def check_part(part: Part) -> None:
        if store.size(part.key) > part.size:
            raise CorruptCheckpoint(f"{part.key} goes on after byte {part.size}")
        for read in plan(part, specs):
            twice(partial(_read, store, read, specs))
            progress(read.stop - read.start)

    checks: dict[str, Callable[[], object]] = {}
    for part in commit.parts:
        checks[part.key] = partial(check_part, part)
        checks[part.state.key] = partial(read_rank_state, store, commit, part.rank)
    with ThreadPoolExecutor(8) as pool:
        problems = pool.map(_problem, checks.values())
        return {key: problem for key, problem in zip(checks, problems, strict=True) if problem}


def _read(store: Store, read: Range, specs: dict[str, TensorSpec]) -> None:
    for _ in verified(store, read, specs):
        pass


def _problem(check: Callable[[], object]) -> str | None:
    try:
        check()
    except CorruptCheckpoint as error:
        return error.reason
    except ObjectMissing:
        return "it is missing"
    return None
