"""From whose memory a generation starts: pure.

A node that holds a checkpoint restores from its own memory. One that does not (its pod is new)
gets the bytes from a node that holds all of them. What only a rank knows is in its own node's
memory, and with the lead: from there it goes to whoever has this rank now. What not every node
can have is no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass

from headway.agent.memory import Copy
from headway.agent.placement import Placement
from headway.checkpoint.layout import CheckpointId

Knows = Callable[[CheckpointId, Sequence[int]], bool]
"""Whether the states of these ranks at a checkpoint are known to the lead."""


@dataclass(frozen=True)
class Source:
    """Where the nodes of a generation find its checkpoint.

    Attributes:
        id: Which checkpoint.
        donors: For each node that has to fetch it, the node that gives it.
        told: Nodes that are told the states of their ranks; the others have them.
        moved: Whether the group that made it had other ranks in other places: its parts can't be
            sent to storage any more.
    """

    id: CheckpointId
    donors: Mapping[int, int]
    told: frozenset[int] = frozenset()
    moved: bool = False


def choose(
    held: Mapping[int, Collection[Copy]],
    placement: Placement,
    knows: Knows,
    newer_than: CheckpointId | None = None,
) -> Source | None:
    """The newest checkpoint that every node has, or can get from another one.

    Args:
        held: For each node what its memory holds.
        placement: The ranks of the generation.
        knows: Whether the lead can tell a node what only ranks know.
        newer_than: The newest one in storage, if that is known: anything older is no choice.

    Returns:
        None if the group has to start from storage.
    """
    ids = {copy.id for index in placement.pods for copy in held[index]}
    for checkpoint in sorted(ids, reverse=True):
        if newer_than is not None and checkpoint < newer_than:
            return None
        holders = {i: c for i in placement.pods for c in held[i] if c.id == checkpoint}
        if source := _of(checkpoint, holders, placement, knows):
            return source
    return None


def _of(
    checkpoint: CheckpointId, holders: Mapping[int, Copy], placement: Placement, knows: Knows
) -> Source | None:
    world_size = next(iter(holders.values())).world_size
    right = {i for i, copy in holders.items() if copy.ranks == tuple(placement.ranks(i))}
    needy = [index for index in placement.pods if index not in holders]
    told = frozenset(placement.pods) - right
    # A rank that the group did not have at that time starts without a state of its own.
    of_old = {i: [r for r in placement.ranks(i) if r < world_size] for i in told}
    moved = world_size != placement.world_size or bool(told - set(needy))
    givers = sorted(index for index, copy in holders.items() if copy.replicated)
    if (needy or moved) and len(givers) < max(len(holders), 1):
        return None  # each rank has a part of its own
    if not all(knows(checkpoint, ranks) for ranks in of_old.values()):
        return None
    # Spread over those who can give.
    donors = {index: givers[n % len(givers)] for n, index in enumerate(needy)}
    return Source(checkpoint, donors, told, moved)
