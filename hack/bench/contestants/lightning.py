"""Lightning: `Trainer.save_checkpoint` to `s3://`, which is what its ModelCheckpoint calls."""

from __future__ import annotations

import time
from typing import Any

import lightning
import torch

from bench.contestants.base import Contestant


class Module(lightning.LightningModule):
    """The model as Lightning wants it."""

    def __init__(self, model: torch.nn.Module, optimizer: torch.optim.Optimizer) -> None:
        super().__init__()
        self.model, self.optimizer = model, optimizer

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return self.optimizer


class Lightning(Contestant):
    """The training waits for all of the save (default CheckpointIO)."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.trainer = lightning.Trainer(
            accelerator="cpu", logger=False, enable_checkpointing=False, enable_progress_bar=False
        )
        self.trainer.strategy.connect(Module(self.model, self.optimizer))
        self.trainer.strategy.optimizers = [self.optimizer]
        self._at = 0.0

    def save(self, key: str) -> None:
        self.trainer.save_checkpoint(self.uri(f"{key}/checkpoint.ckpt"))
        self._at = time.monotonic()

    def durable(self) -> float | None:
        return self._at
