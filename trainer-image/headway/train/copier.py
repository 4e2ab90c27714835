"""Copies a state into a slot while training goes on.

Between a step boundary and the next `optimizer.step()` nothing changes the parameters and the
optimizer's state: forward and backward only read them. So those are copied by a thread (or, on a
GPU, on a stream of its own), and only the optimizer's step waits for the rest of the copy.
Everything else, such as buffers, which a forward pass changes, is copied before the step returns.
"""

from __future__ import annotations

import ctypes
import mmap
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from headway.checkpoint.slot import HEADER, Placed
from headway.train.sharding import local_of

_SMALL = 64 * 1024
"""Tensors of fewer bytes are not worth a thread: among them AdamW's `step`, a CPU scalar that the
step changes in place, which several checkpointers save torn (nvidia-resiliency-ext#376)."""


class TornError(Exception):
    """A tensor was changed while it was copied."""


@dataclass(frozen=True)
class _Source:
    name: str
    tensor: torch.Tensor
    placed: Sequence[tuple[int, int, int]]
    """Offset in the tensor, offset in the data, bytes."""

    @property
    def nbytes(self) -> int:
        return sum(nbytes for _, _, nbytes in self.placed)


class Copier:
    """Copies one state at a time.

    Args:
        optimizers: Those whose step is to wait for the copy.
        models: What they train, perhaps beside others. Frozen weights of a model that is trained
            (the base of an adapter, say) don't change under a forward pass either. An average of
            one is updated by the script, at whatever point of its loop: that is no such model.
    """

    def __init__(
        self,
        optimizers: Iterable[torch.optim.Optimizer],
        models: Iterable[torch.nn.Module] = (),
    ) -> None:
        self._optimizers = list(optimizers)
        self._models = list(models)
        for optimizer in self._optimizers:
            optimizer.register_step_pre_hook(self._before_step)
        self._thread: threading.Thread | None = None
        self._ready = threading.Event()
        self._ready.set()
        self._event: Any = None
        self._stream: Any = None
        self.overlap = True
        """Whether to copy beside the training; off once a copy was torn."""

    def start(
        self,
        tensors: Mapping[str, torch.Tensor],
        placed: Sequence[Placed],
        memory: mmap.mmap,
        then: Callable[[TornError | None], None],
    ) -> None:
        """Copy; what must not wait is copied when this returns.

        Args:
            tensors: The state by name.
            placed: What is to be copied, and where to in the data.
            memory: The slot: header, then data.
            then: Called in a thread when all is copied, or when it is known to be torn.
        """
        self.wait()
        sources = _sources(tensors, placed)
        protected = self._protected() if self.overlap else set()
        later = [s for s in sources if s.nbytes >= _SMALL and s.tensor.data_ptr() in protected]
        chosen = {source.name for source in later}
        now = [source for source in sources if source.name not in chosen]
        start = ctypes.addressof(ctypes.c_char.from_buffer(memory)) + HEADER
        versions = [_version(source.tensor) for source in later]
        self._copy_now(now, start, memory)
        self._ready.clear()
        self._launch(later, memory)

        def copy() -> None:
            try:
                for source in later:
                    if source.tensor.device.type == "cpu":
                        _move(source, start)
                if self._event is not None:
                    self._event.synchronize()
                changed = [s.name for s, v in zip(later, versions, strict=True)
                           if _version(s.tensor) != v]  # fmt: skip
            finally:
                self._ready.set()
            then(TornError(changed[0]) if changed else None)

        self._thread = threading.Thread(target=copy, name="headway-copier", daemon=True)
        self._thread.start()

    def wait(self) -> None:
        """Wait until nothing is copied, and what follows a copy is done."""
        if self._thread is not None:
            self._thread.join()
            self._thread = None

    def _before_step(self, *_: Any) -> None:
        if self._event is not None:
            torch.cuda.current_stream().wait_event(self._event)
            if not self._cpu_pending:
                return  # the GPU waits; this thread need not
        self._ready.wait()

    _cpu_pending = False

    def _protected(self) -> set[int]:
        """Addresses of what only an optimizer's step changes."""
        found = set()
        for optimizer in self._optimizers:
            for group in optimizer.param_groups:
                found |= {local_of(p).data_ptr() for p in group["params"]}
        for model in self._models:
            weights = {local_of(p).data_ptr() for p in model.parameters()}
            if weights & found:
                found |= weights
        for optimizer in self._optimizers:
            for state in optimizer.state.values():
                tensors = (v for v in state.values() if isinstance(v, torch.Tensor))
                found |= {local_of(tensor).data_ptr() for tensor in tensors}
        return found

    def _copy_now(self, sources: Sequence[_Source], start: int, memory: mmap.mmap) -> None:
        for source in sources:
            if source.tensor.device.type == "cpu":
                _move(source, start)
        on_device = [s for s in sources if s.tensor.device.type != "cpu"]
        if on_device:
            self._enqueue(on_device, memory)
            # The device does what follows after these copies; this thread goes on at once.
            torch.cuda.current_stream().wait_stream(self._stream)

    def _launch(self, sources: Sequence[_Source], memory: mmap.mmap) -> None:
        on_device = [s for s in sources if s.tensor.device.type != "cpu"]
        self._cpu_pending = len(on_device) < len(sources)
        if on_device:
            self._enqueue(on_device, memory)
        self._event = self._stream.record_event() if self._stream is not None else None

    def _enqueue(self, sources: Sequence[_Source], memory: mmap.mmap) -> None:
        """Put copies from the GPU on a stream of their own, behind what computes the values."""
        if self._stream is None:
            self._stream = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        _pin(memory)
        target = torch.frombuffer(memory, dtype=torch.uint8)
        self._stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(self._stream):
            for source in sources:
                flat = source.tensor.reshape(-1).view(torch.uint8)
                for at, to, nbytes in source.placed:
                    place = target[HEADER + to : HEADER + to + nbytes]
                    place.copy_(flat[at : at + nbytes], non_blocking=True)
                source.tensor.record_stream(self._stream)


def _sources(tensors: Mapping[str, torch.Tensor], placed: Iterable[Placed]) -> list[_Source]:
    pieces: dict[str, list[tuple[int, int, int]]] = {}
    for each in placed:
        item = tensors[each.fragment.name].element_size()
        piece = (each.fragment.start * item, each.offset, each.nbytes)
        pieces.setdefault(each.fragment.name, []).append(piece)
    # What is not contiguous is copied twice, the first time now.
    return [_Source(name, tensors[name].contiguous(), each) for name, each in pieces.items()]


def _move(source: _Source, start: int) -> None:
    address = source.tensor.data_ptr()
    for at, to, nbytes in source.placed:
        # Unlike an assignment to a memoryview, this lets other threads run.
        ctypes.memmove(start + to, address + at, nbytes)


def _version(tensor: torch.Tensor) -> int:
    """Counts the changes in place that torch knows of; those by way of `.data` it does not."""
    return 0 if tensor.is_inference() else tensor._version


_pinned: dict[int, int] = {}


def _pin(memory: mmap.mmap) -> None:
    """Let the GPU write to these pages directly; without it a copy holds this thread up."""
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    if _pinned.get(start) == len(memory):
        return
    cudart = torch.cuda.cudart()  # type: ignore[no-untyped-call]
    if start in _pinned:
        cudart.cudaHostUnregister(start)
    cudart.cudaHostRegister(start, len(memory), 0)
    _pinned[start] = len(memory)
