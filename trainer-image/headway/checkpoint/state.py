"""Training state without torch: what tensors there are, and who writes which bytes of them."""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from pydantic import BaseModel, ConfigDict, NonNegativeInt, field_validator

CHUNK: Final = 16 * 1024 * 1024
"""Bytes that get one checksum and are read in one request: bounds memory while streaming."""

ITEM_SIZES: Final = {
    "BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "F8_E8M0": 1,
    "F8_E4M3FNUZ": 1, "F8_E5M2FNUZ": 1,
    "U16": 2, "I16": 2, "F16": 2, "BF16": 2,
    "U32": 4, "I32": 4, "F32": 4,
    "U64": 8, "I64": 8, "F64": 8, "C64": 8,
}  # fmt: skip
"""Bytes per element of the safetensors dtypes whose elements are whole bytes."""

_PIECE_NAME = re.compile(r".*@\d+", re.DOTALL)


class TensorSpec(BaseModel):
    """Name, element type and shape of one tensor.

    Attributes:
        name: unique within the state.
        dtype: as safetensors spells it, such as ``F32``, ``BF16``, ``I64`` or ``BOOL``.
        shape: elements along each dimension; ``()`` for a scalar; zeros are allowed.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    dtype: str
    shape: tuple[NonNegativeInt, ...]

    @field_validator("name")
    @classmethod
    def _name_is_free(cls, name: str) -> str:
        if not name or name == "__metadata__" or _PIECE_NAME.fullmatch(name):
            raise ValueError(
                f"{name!r} cannot name a tensor: it must not be empty, `__metadata__`, "
                "or end in @<number>, which marks a piece of a tensor"
            )
        return name

    @field_validator("dtype")
    @classmethod
    def _dtype_is_known(cls, dtype: str) -> str:
        if dtype not in ITEM_SIZES:
            raise ValueError(f"unknown dtype {dtype!r}: use one of {', '.join(ITEM_SIZES)}")
        return dtype

    @property
    def item_size(self) -> int:
        """Bytes per element."""
        return ITEM_SIZES[self.dtype]

    @property
    def count(self) -> int:
        """Number of elements."""
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        """Bytes of the whole tensor, row-major."""
        return self.count * self.item_size


@dataclass(frozen=True, slots=True)
class Fragment:
    """A run of elements of one tensor, at most `CHUNK` bytes.

    Attributes:
        name: the tensor.
        start: its first element, counted row-major.
        count: elements; 0 only for a tensor that has none.
    """

    name: str
    start: int
    count: int


def partition(
    specs: Iterable[TensorSpec], world_size: int, rank_zero: Collection[str] = ()
) -> list[list[Fragment]]:
    """Divide a state among writers: every element belongs to exactly one rank.

    All tensors, in the order of their names, form one line of bytes, which is cut into
    `world_size` runs of equal length; each cut is moved down to the start of an element.
    Every rank computes the same answer from names, dtypes and shapes alone, so no rank has to
    tell another what it writes.

    Args:
        specs: the whole state, in any order.
        world_size: number of ranks, 1 or more.
        rank_zero: names of tensors that all go to rank 0, because only its values count.

    Returns:
        One list of fragments per rank, in the order of tensor names and elements.

    Raises:
        ValueError: two tensors have the same name, or `world_size` is below 1.
    """
    if world_size < 1:
        raise ValueError(f"world_size must be 1 or more, not {world_size}")
    ordered = sorted(specs, key=lambda spec: spec.name)
    _refuse_duplicates(ordered)
    shared = [spec for spec in ordered if spec.name not in rank_zero]
    total = sum(spec.nbytes for spec in shared)
    cuts = [total * rank // world_size for rank in range(world_size + 1)]
    parts: list[list[Fragment]] = [[] for _ in range(world_size)]
    offset = 0
    for spec in shared:
        for rank, start, stop in _owners(spec, offset, cuts):
            parts[rank].extend(pieces_of(spec, start, stop))
        offset += spec.nbytes
    for spec in ordered:
        if spec.name in rank_zero:
            parts[0].extend(pieces_of(spec, 0, spec.count))
    return parts


def _refuse_duplicates(ordered: list[TensorSpec]) -> None:
    for spec, following in pairwise(ordered):
        if spec.name == following.name:
            raise ValueError(f"two tensors are named {spec.name!r}: names must be unique")


def _owners(spec: TensorSpec, offset: int, cuts: list[int]) -> Iterator[tuple[int, int, int]]:
    """Yield (rank, first element, element after the last) for a tensor at byte `offset`."""
    world_size = len(cuts) - 1
    first = min(bisect_right(cuts, offset), world_size) - 1
    if spec.count == 0:
        yield first, 0, 0
    end = offset + spec.nbytes
    for rank in range(first, world_size):
        if cuts[rank] >= end:
            return
        start = (max(cuts[rank], offset) - offset) // spec.item_size
        stop = (min(cuts[rank + 1], end) - offset) // spec.item_size
        if stop > start:
            yield rank, start, stop


def pieces_of(spec: TensorSpec, start: int, stop: int) -> Iterator[Fragment]:
    """Cut the elements from `start` to before `stop` into fragments."""
    if start == stop:
        yield Fragment(spec.name, start, 0)
    step = CHUNK // spec.item_size
    for first in range(start, stop, step):
        yield Fragment(spec.name, first, min(step, stop - first))
