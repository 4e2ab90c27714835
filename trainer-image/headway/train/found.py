"""A checkpoint that has been found and read, wherever it was."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import torch

from headway.checkpoint.layout import CheckpointId


@dataclass(frozen=True)
class Found:
    """What a restore has brought.

    Attributes:
        id: Which checkpoint.
        objects: State outside tensors, as `state.flatten` left it.
        rank_state: This rank's own; None if it did not exist at that world size.
        tensors: By name.
        source: Where it came from.
        borrowed: Whether the tensors' memory belongs to somebody else.
        fallbacks: Newer checkpoints that could not be used, and why.
    """

    id: CheckpointId
    objects: Any
    rank_state: Mapping[str, Any] | None
    tensors: Mapping[str, torch.Tensor]
    source: Literal["memory", "storage"]
    borrowed: bool = False
    fallbacks: Sequence[str] = ()
