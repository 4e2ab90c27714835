"""From whose memory a generation starts: pure.

A node that holds a checkpoint restores from its own memory. One that does not (its pod is new)
gets the bytes from a node that holds all of them, and the states of its own ranks from where they
were kept. What not every node can have is no choice.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

from headway.agent.memory import Copy
from headway.checkpoint.layout import CheckpointId


@dataclass(frozen=True)
class Source:
    """Where the nodes of a generation find its checkpoint.

    Attributes:
        id: Which checkpoint.
        donors: For each node that has to fetch it, the node that gives it.
    """

    id: CheckpointId
    donors: Mapping[int, int]


def choose(
    held: Mapping[int, Collection[Copy]],
    kept: Callable[[CheckpointId, int], bool],
    newer_than: CheckpointId | None = None,
) -> Source | None:
    """The newest checkpoint that every node has, or can get from another one.

    Args:
        held: For each node what its memory holds.
        kept: Whether the states of a node's ranks at a checkpoint are known elsewhere.
        newer_than: The newest one in storage, if that is known: anything older is no choice.

    Returns:
        None if the group has to start from storage.
    """
    ids = {copy.id for copies in held.values() for copy in copies}
    for checkpoint in sorted(ids, reverse=True):
        if newer_than is not None and checkpoint < newer_than:
            return None
        holders = {i: c for i, copies in held.items() for c in copies if c.id == checkpoint}
        givers = sorted(index for index, copy in holders.items() if copy.replicated)
        needy = [index for index in held if index not in holders]
        if not needy:
            return Source(checkpoint, {})
        if givers and all(kept(checkpoint, index) for index in needy):
            # Spread over those who can give.
            return Source(checkpoint, {i: givers[n % len(givers)] for n, i in enumerate(needy)})
    return None
