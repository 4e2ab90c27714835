"""Random number generators: seeded once, saved and restored exactly."""

from __future__ import annotations

import base64
import contextlib
import hashlib
import random
import zlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import torch


def seed_everything(seed: int, rank: int) -> None:
    """Seed Python, NumPy and torch; each rank draws its own numbers."""
    random.seed(seed + rank)
    np.random.seed((seed + rank) % 2**32)
    torch.manual_seed(seed + rank)


def seed_for(*what: int) -> None:
    """Seed the generators of Python, NumPy and the CPU's of torch with what identifies a thing."""
    digest = hashlib.blake2b(repr(what).encode(), digest_size=8).digest()
    seed = int.from_bytes(digest, "little")
    random.seed(seed)
    np.random.seed(seed % 2**32)
    # Not torch.manual_seed, which also queues a seed for every GPU.
    torch.default_generator.manual_seed(seed)


@contextlib.contextmanager
def preserved() -> Iterator[None]:
    """Put the generators of Python, NumPy and the CPU's of torch back afterwards."""
    python, cpu = random.getstate(), torch.get_rng_state()
    numpy = np.random.get_state(legacy=False)  # in half the time
    try:
        yield
    finally:
        random.setstate(python)
        np.random.set_state(numpy)
        torch.set_rng_state(cpu)


class States(NamedTuple):
    """States of all generators of this process, as they themselves give them.

    Attributes:
        python: of `random`.
        numpy: of NumPy's global generator.
        torch: of the CPU's.
        cuda: of each GPU; None without.
    """

    python: tuple[Any, ...]
    numpy: Any
    torch: torch.Tensor
    cuda: list[torch.Tensor] | None

    def as_json(self) -> dict[str, Any]:
        """What a checkpoint holds, and `restore` takes."""
        version, words, gauss = self.python
        name, keys, position, has_gauss, cached = self.numpy
        state: dict[str, Any] = {
            "python": [version, _text(np.array(words, dtype="<u4")), gauss],
            "numpy": [
                name,
                _text(np.asarray(keys, "<u4")),
                int(position),
                int(has_gauss),
                float(cached),
            ],
            "torch": _text(self.torch.numpy()),
        }
        if self.cuda is not None:
            state["cuda"] = [_text(each.numpy()) for each in self.cuda]
        return state


def capture() -> States:
    """The generators as they are now. Cheap: it is done at every epoch, and not all are saved."""
    return States(
        random.getstate(),
        np.random.get_state(),
        torch.get_rng_state(),
        torch.cuda.get_rng_state_all() if torch.cuda.is_available() else None,
    )


def restore(state: dict[str, Any]) -> None:
    """Put every generator back to where `capture` found it, from `States.as_json`.

    GPUs count from 0; one that was not there keeps the state that it has.
    """
    version, words, gauss = state["python"]
    random.setstate((version, tuple(_array(words, "<u4").tolist()), gauss))
    name, keys, position, has_gauss, cached = state["numpy"]
    np.random.set_state((name, _array(keys, "<u4"), position, has_gauss, cached))
    torch.set_rng_state(torch.from_numpy(_array(state["torch"], "u1")))
    if torch.cuda.is_available():
        there = state.get("cuda", [])[: torch.cuda.device_count()]
        torch.cuda.set_rng_state_all(torch.from_numpy(_array(each, "u1")) for each in there)


def _text(array: np.ndarray[Any, Any]) -> str:
    return base64.b64encode(zlib.compress(array.tobytes(), 1)).decode()


def _array(text: str, dtype: str) -> np.ndarray[Any, Any]:
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), dtype).copy()
