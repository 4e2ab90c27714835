"""Which bytes of a state a process holds in memory.

A node of a replicated (DDP) group holds every byte, so that it can give the whole state to a
node that has lost its own; its local ranks share the work of copying. What only one rank has (a
shard) it holds itself.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from .partfile import in_file_order
from .slot import Layout
from .state import Fragment, TensorSpec, partition, pieces_of


@dataclass(frozen=True)
class Shard:
    """What a rank has of a tensor that is divided among the ranks: a run of its elements.

    Attributes:
        owner: the rank that writes it; others that have the same hold it for themselves.
        start: the first element, row-major.
        count: elements; may be 0.
    """

    owner: int
    start: int
    count: int


def layout_of(
    specs: Iterable[TensorSpec],
    rank: int,
    world_size: int,
    local_world_size: int,
    rank_zero: Collection[str] = (),
    shards: Mapping[str, Shard] | None = None,
) -> Layout:
    """What `rank` holds: the part that it writes, and those of its like on the other nodes.

    Args:
        specs: the whole state.
        rank: this rank; ranks of a node follow each other.
        world_size: all ranks.
        local_world_size: ranks of each node.
        rank_zero: tensors of which only rank 0's values count.
        shards: of tensors that are divided among the ranks, what this rank has.
    """
    named = {spec.name: spec for spec in specs}
    shards = shards or {}
    replicated = [spec for name, spec in named.items() if name not in shards]
    parts = partition(replicated, world_size, rank_zero)
    shares: dict[int, list[Fragment]] = {
        each: parts[each] for each in range(rank % local_world_size, world_size, local_world_size)
    }
    for name, shard in shards.items():
        if shard.count or (rank == 0 and not named[name].count):
            pieces = pieces_of(named[name], shard.start, shard.start + shard.count)
            shares.setdefault(shard.owner, []).extend(pieces)
    ordered = {each: tuple(in_file_order(named, share)) for each, share in shares.items()}
    return Layout(world_size, named, ordered, replicated=not shards)
