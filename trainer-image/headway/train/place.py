"""Where this process stands in its group."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from headway_api import contract


@dataclass(frozen=True)
class Place:
    """One rank's place.

    Attributes:
        rank: Global rank.
        world_size: Ranks of the group.
        local_rank: Rank within the node.
        local_world_size: Ranks of each node.
        generation: Of the worker group.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    generation: int = 1

    @classmethod
    def from_env(cls, env: Mapping[str, str]) -> Place:
        """As the agent (or torchrun) has set it."""
        return cls(
            rank=int(env.get("RANK", "0")),
            world_size=int(env.get("WORLD_SIZE", "1")),
            local_rank=int(env.get("LOCAL_RANK", "0")),
            local_world_size=int(env.get("LOCAL_WORLD_SIZE", "1")),
            generation=int(env.get(contract.ENV_GENERATION, "1")),
        )

    @property
    def nodes(self) -> int:
        """Nodes of the group."""
        return -(-self.world_size // self.local_world_size)
