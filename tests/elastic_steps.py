"""What tests/local/jobs/scripts/horovod_elastic.py writes: read, and judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

BATCHES = 200


class Step(NamedTuple):
    """A batch as rank 0 saw it; `total` is the exact sum of the parameters."""

    batch: int
    size: int
    process: int
    total: str


NONE = Step(0, 0, 0, "")
"""Before the first."""


def read(lines: Iterable[str]) -> list[Step]:
    """The steps among these lines, which may have something before them."""
    found = []
    for line in lines:
        words = line.split()[-4:]
        if len(words) == 4 and words[3].startswith(("0x", "-0x")):
            found.append(Step(int(words[0]), int(words[1]), int(words[2]), words[3]))
    return found


def nothing_was_lost(steps: Sequence[Step]) -> None:
    """Every batch has been done, and done again it came to the same."""
    totals: dict[int, set[str]] = {}
    for step in steps:
        totals.setdefault(step.batch, set()).add(step.total)
    assert sorted(totals) == list(range(1, BATCHES + 1)), "a batch was left out"
    assert {len(seen) for seen in totals.values()} == {1}, "a batch done again came to another end"
