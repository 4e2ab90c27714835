"""Where everything lies under a job's root: names only, nothing here touches a store.

ckpt/<step>-<generation>/part-<r>-of-<n>.safetensors    a slice of all tensors
                         rank-<r>.json                  what belongs to one rank
                         COMMIT.json                    written last: makes it a checkpoint
generation.json                                         which generation may commit
LATEST                                                  a hint for people, never trusted
metrics/<generation>-<seq>.jsonl                        history
horovod/<name>-g<generation>.<json|csv>                 of the agent (agent/horovod/timeline.py)
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

CHECKPOINTS: Final = "ckpt"
GENERATION: Final = "generation.json"
LATEST: Final = "LATEST"
METRICS: Final = "metrics"
PROBE: Final = "probe"

_DIRECTORY = re.compile(r"(\d{12,})-(\d{6,})")
_PART = re.compile(r"part-(\d{5,})-of-(\d{5,})\.safetensors")
_RANK = re.compile(r"rank-(\d{5,})\.json")
_METRICS = re.compile(METRICS + r"/(\d{6,})-(\d{6,})\.jsonl")
_COMMIT = "COMMIT.json"


@dataclass(frozen=True, order=True, slots=True)
class CheckpointId:
    """Names one checkpoint, ordered by generation first.

    A group that was cut off may go on training and reach a higher step than its successor, so a
    newer generation always wins over a higher step.

    Attributes:
        generation: the worker group that wrote it; 0 or more.
        step: training steps done; 0 or more.
    """

    generation: int
    step: int

    def __post_init__(self) -> None:
        if self.generation < 0 or self.step < 0:
            raise ValueError(f"generation and step must not be negative: {self}")

    @classmethod
    def named_in(cls, message: Mapping[str, Any]) -> CheckpointId:
        """The one that a message between processes is about; undoes `names`."""
        return cls(int(message["generation"]), int(message["step"]))

    @property
    def names(self) -> dict[str, int]:
        """What a message between processes says of it."""
        return {"generation": self.generation, "step": self.step}

    @property
    def directory(self) -> str:
        """The key prefix of all its objects, without a slash at the end."""
        return f"{CHECKPOINTS}/{self.step:012d}-{self.generation:06d}"

    @property
    def commit_key(self) -> str:
        """The key of its COMMIT.json."""
        return f"{self.directory}/{_COMMIT}"

    def part_key(self, rank: int, world_size: int) -> str:
        """Return the key of the slice that `rank` writes."""
        return f"{self.directory}/part-{rank:05d}-of-{world_size:05d}.safetensors"

    def rank_key(self, rank: int) -> str:
        """Return the key of the state that belongs to `rank` alone."""
        return f"{self.directory}/rank-{rank:05d}.json"

    def __str__(self) -> str:
        return f"step {self.step} of generation {self.generation}"


@dataclass(frozen=True, slots=True)
class CommitKey:
    """A parsed COMMIT.json key."""

    id: CheckpointId


@dataclass(frozen=True, slots=True)
class PartKey:
    """A parsed part key."""

    id: CheckpointId
    rank: int
    world_size: int


@dataclass(frozen=True, slots=True)
class RankKey:
    """A parsed rank state key."""

    id: CheckpointId
    rank: int


@dataclass(frozen=True, slots=True)
class MetricsKey:
    """A parsed history key."""

    generation: int
    seq: int


CheckpointKey = CommitKey | PartKey | RankKey


def metrics_key(generation: int, seq: int) -> str:
    """Return the key of the `seq`-th piece of history that `generation` wrote."""
    return f"{METRICS}/{generation:06d}-{seq:06d}.jsonl"


def parse_metrics_key(key: str) -> MetricsKey | None:
    """Read a history key back; None for anything else."""
    match = _METRICS.fullmatch(key)
    if match is None:
        return None
    parsed = MetricsKey(int(match[1]), int(match[2]))
    return parsed if metrics_key(parsed.generation, parsed.seq) == key else None


def parse_checkpoint_key(key: str) -> CheckpointKey | None:
    """Read the key of a checkpoint's object back; None for anything else.

    Only the exact spelling that this module writes counts: other programs' files in the same
    bucket must not turn into checkpoints.
    """
    top, _, rest = key.partition("/")
    directory, _, name = rest.partition("/")
    match = _DIRECTORY.fullmatch(directory)
    if top != CHECKPOINTS or match is None:
        return None
    checkpoint = CheckpointId(generation=int(match[2]), step=int(match[1]))
    return _parse_name(checkpoint, key, name)


def _parse_name(checkpoint: CheckpointId, key: str, name: str) -> CheckpointKey | None:
    if key == checkpoint.commit_key:
        return CommitKey(checkpoint)
    if part := _PART.fullmatch(name):
        rank, world_size = int(part[1]), int(part[2])
        same = key == checkpoint.part_key(rank, world_size)
        return PartKey(checkpoint, rank, world_size) if same else None
    if state := _RANK.fullmatch(name):
        rank = int(state[1])
        return RankKey(checkpoint, rank) if key == checkpoint.rank_key(rank) else None
    return None
