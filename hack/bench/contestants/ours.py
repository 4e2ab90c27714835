"""Headway as a user has it: a script under the agent, `run.checkpointing` and `run.step`."""

from __future__ import annotations

from typing import Any

import headway
from bench.contestants.base import Contestant

EVERY_STEPS = 1000
"""`checkpoint.everySteps` of the job. Steps without training go fast, so one save a turn."""


class Headway(Contestant):
    """Saves happen inside `run.step` when the step is due."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        self.run = headway.init()

    def begin(self) -> None:
        self.run.checkpointing(model=self.model, optimizer=self.optimizer)

    def load(self, key: str) -> None:
        del key  # the job has one place
        if not self.run.checkpointing(model=self.model, optimizer=self.optimizer):
            raise RuntimeError("there was no checkpoint to restore")

    def prepare(self, steps: int) -> None:
        while (self.run.step_count + steps) % EVERY_STEPS:
            self.run.step()

    def boundary(self) -> None:
        self.run.step()

    def save(self, key: str) -> None:
        del key  # the agent knows where
        self.run.step()

    def durable(self) -> float | None:
        return self.told()
