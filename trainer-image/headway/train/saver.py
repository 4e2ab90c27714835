"""Saving from a worker: copy at the step boundary, send from a thread.

Each rank copies and sends only its share of the tensors. Buffers (such as BatchNorm's running
statistics) differ between the ranks of a DDP group until rank 0's are broadcast at the next
forward pass, so rank 0's count, and rank 0 sends them all.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from headway.checkpoint import writer
from headway.checkpoint.errors import StoreError, StoreUnavailable
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.state import TensorSpec, partition
from headway.checkpoint.stores import Store
from headway.train.link import AgentLink
from headway.train.state import copy_bytes, spec_of, view_of

log = logging.getLogger("headway")


@dataclass(frozen=True)
class Snapshot:
    """One rank's share of the state at a step boundary, copied.

    Attributes:
        checkpoint: Which checkpoint it is for.
        tensors: Spec and bytes by name; the bytes are real where this rank writes them.
        objects: State outside tensors that all ranks share.
        rank_state: State of this rank alone.
        metrics: Latest metrics, for keeping the best.
    """

    checkpoint: CheckpointId
    tensors: Mapping[str, tuple[TensorSpec, memoryview]]
    rank_zero: Collection[str]
    objects: Any
    rank_state: Mapping[str, Any]
    metrics: Mapping[str, float]


def take(
    tensors: Mapping[str, torch.Tensor], rank: int, world_size: int, rank_zero: Collection[str]
) -> dict[str, tuple[TensorSpec, memoryview]]:
    """Copy the bytes that this rank writes; other tensors get memory that is never touched."""
    specs = {name: spec_of(name, tensor) for name, tensor in tensors.items()}
    mine = {f.name for f in partition(specs.values(), world_size, rank_zero)[rank]}
    return {
        name: (spec, copy_bytes(tensors[name]) if name in mine else _untouched(spec.nbytes))
        for name, spec in specs.items()
    }


def _untouched(nbytes: int) -> memoryview:
    # Memory that nobody writes to is never made real by the kernel.
    return view_of(torch.empty(nbytes, dtype=torch.uint8))


class Saver:
    """Sends snapshots to storage, one at a time, and tells the lead what was sent."""

    def __init__(self, store: Store, link: AgentLink, rank: int, world_size: int) -> None:
        self._store, self._link = store, link
        self._rank, self._world = rank, world_size
        self._thread: threading.Thread | None = None
        self.resumed_from: CheckpointId | None = None

    def send(self, snapshot: Snapshot) -> None:
        """Send in the background, after what is being sent now."""
        self.wait()
        self._thread = threading.Thread(
            target=self._send, args=(snapshot,), name="headway-saver", daemon=True
        )
        self._thread.start()

    def committed(self, step: int) -> bool:
        """Wait until the checkpoint of `step`, sent before, is committed; False if it can't be."""
        self.wait()
        return self._link.committed(step)

    def wait(self) -> None:
        """Wait for what is being sent."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _send(self, snapshot: Snapshot) -> None:
        while True:
            try:
                receipt = writer.write_part(
                    self._store,
                    snapshot.checkpoint,
                    self._rank,
                    self._world,
                    snapshot.tensors,
                    snapshot.rank_state,
                    snapshot.objects,
                    rank_zero=snapshot.rank_zero,
                )
            except StoreUnavailable as error:
                # Nothing is lost while we hold the snapshot: the training goes on meanwhile.
                log.warning("storage does not answer; the checkpoint is sent later: %s", error)
                continue
            except (StoreError, ValueError) as error:
                self._failed(snapshot, error)
                return
            break
        resumed = self.resumed_from
        self._link.send(
            {
                "type": "receipt",
                "receipt": receipt.model_dump(mode="json"),
                "metrics": dict(snapshot.metrics),
                "resumed_from": vars_of(resumed) if resumed else None,
            }
        )

    def _failed(self, snapshot: Snapshot, error: Exception) -> None:
        log.error("checkpoint %s could not be saved: %s", snapshot.checkpoint, error)
        self._link.send(
            {"type": "save_failed", **vars_of(snapshot.checkpoint), "message": str(error)}
        )


def vars_of(checkpoint: CheckpointId) -> dict[str, int]:
    """The identity of a checkpoint as JSON."""
    return {"generation": checkpoint.generation, "step": checkpoint.step}
