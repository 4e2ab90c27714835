"""Saving from a worker: into shared memory. From there the pod's uploader sends it to storage.

Buffers (such as BatchNorm's running statistics) differ between the ranks of a DDP group until
rank 0's are broadcast at the next forward pass, so rank 0's count, on every node.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.distributed as dist

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.shares import Shard, layout_of
from headway.checkpoint.slot import Layout, Placed, Slot
from headway.checkpoint.state import Fragment
from headway.train.copier import Copier, TornError
from headway.train.link import AgentLink
from headway.train.place import Place
from headway.train.sharding import local_of, shards_of
from headway.train.state import spec_of

log = logging.getLogger("headway")


class NoMemoryError(Exception):
    """The pod has no room for checkpoints in memory; the message says what to change."""


@dataclass(frozen=True)
class Snapshot:
    """The state at a step boundary: tensors by reference, everything else as it was then.

    Attributes:
        step: Steps done.
        tensors: By name. They must not change before the next optimizer step.
        rank_zero: Names of those of which only rank 0's values count.
        objects: State outside tensors that all ranks share.
        rank_state: State of this rank alone.
        metrics: Latest metrics, for keeping the best.
    """

    step: int
    tensors: Mapping[str, torch.Tensor]
    rank_zero: Collection[str]
    objects: Any
    rank_state: Mapping[str, Any]
    metrics: Mapping[str, float]


class Saver:
    """Puts snapshots into one of two slots, and tells the agent what is sealed."""

    def __init__(
        self,
        link: AgentLink,
        place: Place,
        optimizers: Iterable[torch.optim.Optimizer],
        models: Iterable[torch.nn.Module] = (),
    ) -> None:
        self._link, self._place = link, place
        self._copier = Copier(optimizers, models)
        self._slots: list[Slot] = []
        self._layout: Layout | None = None
        self._pieces: list[Placed] = []
        """What is to be copied: of what is divided, counted from this rank's first element."""
        self._shards: dict[str, Shard] = {}
        self._key: Any = None
        self._preparing: threading.Thread | None = None
        self._refused: NoMemoryError | None = None
        self.resumed_from: CheckpointId | None = None

    def prepare(self, tensors: Mapping[str, torch.Tensor], rank_zero: Collection[str]) -> None:
        """Get the memory that saves will need, in the background."""
        self._plan(tensors, rank_zero)
        self._preparing = threading.Thread(target=self._get_slots, daemon=True)
        self._preparing.start()

    def save(self, snapshot: Snapshot) -> None:
        """Copy a snapshot; most of it beside the training (see `copier`).

        Raises:
            NoMemoryError: there is no room for it.
        """
        tensors = self._with_buffers_of_rank_zero(snapshot)
        self._copier.wait()
        if self._plan(tensors, snapshot.rank_zero) or self._preparing is None:
            self.prepare(tensors, snapshot.rank_zero)
        assert self._preparing is not None
        assert self._layout is not None
        self._preparing.join()
        if self._refused is not None:
            raise self._refused
        layout, slot = self._layout, self._next_slot()
        memory = slot.map(layout.nbytes)
        slot.begin()

        def copied(torn: TornError | None) -> None:
            self._copied(slot, layout, snapshot, torn)

        here = {name: local_of(tensor) for name, tensor in tensors.items()}
        self._copier.start(here, self._pieces, memory, copied)

    def refusal(self, step: int) -> str | None:
        """Wait until the checkpoint of `step`, saved before, is committed; why, if it can't be."""
        self._copier.wait()
        return self._link.refusal(step)

    def wait(self) -> None:
        """Wait until nothing is being copied."""
        self._copier.wait()

    # --- memory ----------------------------------------------------------------------------------

    def _plan(self, tensors: Mapping[str, torch.Tensor], rank_zero: Collection[str]) -> bool:
        """Lay the state out; returns whether it differs from the one before."""
        key = [(name, tensor.dtype, tensor.shape) for name, tensor in tensors.items()]
        if key == self._key:
            return False
        specs = [spec_of(name, tensor) for name, tensor in tensors.items()]
        here = self._place
        self._shards = shards_of(tensors)
        self._layout = layout_of(
            specs, here.rank, here.world_size, here.local_world_size, rank_zero, self._shards
        )
        self._pieces = [
            replace(piece, fragment=self._here(piece.fragment))
            for share in self._layout.placed.values()
            for piece in share
        ]
        self._key = key
        return True

    def _here(self, fragment: Fragment) -> Fragment:
        shard = self._shards.get(fragment.name)
        return fragment if shard is None else replace(fragment, start=fragment.start - shard.start)

    def _get_slots(self) -> None:
        assert self._layout is not None
        answer = self._link.ask({"type": "slots", "nbytes": self._layout.nbytes})
        if answer.get("refused"):
            self._refused = NoMemoryError(answer["refused"])
            return
        paths = answer["paths"]
        if [slot.path for slot in self._slots] != paths:
            for slot in self._slots:
                slot.close()
            self._slots = [Slot(path) for path in paths]
        for slot in self._slots:
            slot.map(self._layout.nbytes)

    def _next_slot(self) -> Slot:
        """The slot that nobody needs: never the one that is being uploaded, else the older."""
        held = self._link.held
        free = [slot for number, slot in enumerate(self._slots) if number != held]
        return min(free, key=lambda slot: slot.age)

    # --- what is saved ---------------------------------------------------------------------------

    def _with_buffers_of_rank_zero(self, snapshot: Snapshot) -> Mapping[str, torch.Tensor]:
        """The tensors, with rank 0's values of the buffers on every node."""
        names = sorted(snapshot.rank_zero)
        if self._place.nodes == 1 or not names:
            return snapshot.tensors
        parts = [snapshot.tensors[name].contiguous().reshape(-1) for name in names]
        flat = torch.cat([part.view(torch.uint8) for part in parts])
        dist.broadcast(flat, src=0)
        copies, at = {}, 0
        for name, part in zip(names, parts, strict=True):
            nbytes = part.numel() * part.element_size()
            like = snapshot.tensors[name]
            # A clone, since a slice may begin at an address that does not suit its type.
            copies[name] = flat[at : at + nbytes].clone().view(like.dtype).reshape(like.shape)
            at += nbytes
        return {**snapshot.tensors, **copies}

    def _copied(
        self,
        slot: Slot,
        layout: Layout,
        snapshot: Snapshot,
        torn: TornError | None,
    ) -> None:
        checkpoint = CheckpointId(self._place.generation, snapshot.step)
        if torn is not None:
            self._copier.overlap = False
            why = f"{torn} was changed outside optimizer.step() while it was copied"
            log.warning("%s; from now on everything is copied before a step returns", why)
            self._link.send({"type": "save_failed", **checkpoint.names, "message": why})
            return
        resumed = self.resumed_from
        try:
            slot.seal(
                checkpoint,
                layout,
                {
                    "objects": snapshot.objects,
                    "rank": self._place.rank,
                    "rank_state": snapshot.rank_state,
                    "metrics": dict(snapshot.metrics),
                    "resumed_from": resumed.names if resumed else None,
                },
            )
        except (OSError, ValueError) as error:
            why = f"checkpoint {checkpoint} could not be saved: {error}"
            self._link.send({"type": "save_failed", **checkpoint.names, "message": why})
            return
        self._link.send(
            {
                "type": "sealed",
                **checkpoint.names,
                # So that a lost pod's ranks find their own in whoever takes their place.
                "rank_state": snapshot.rank_state if self._place.nodes > 1 else None,
            }
        )
