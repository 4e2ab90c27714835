"""Reading the bytes of parts: in few requests, each fragment verified before anybody sees it."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from typing import TypeVar

from .checksum import crc64
from .errors import CorruptCheckpoint, ObjectMissing
from .manifest import FragmentReceipt, Part
from .partfile import header
from .state import CHUNK, Fragment, TensorSpec
from .stores import Store

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Range:
    """Bytes of a part that are fetched in one request.

    Attributes:
        part: whose.
        start: first byte; 0 when the request starts with the header.
        stop: byte after the last.
        fragments: those that lie in these bytes.
    """

    part: Part
    start: int
    stop: int
    fragments: tuple[FragmentReceipt, ...]


def plan(
    part: Part,
    wanted: Collection[str],
    needed: Callable[[FragmentReceipt], bool] = lambda _: True,
) -> Iterator[Range]:
    """Group the needed fragments of a part, and its header, into requests of about `CHUNK`.

    Args:
        part: the part.
        wanted: names of tensors.
        needed: whether a fragment of such a tensor is needed.
    """
    start, stop = 0, part.header_nbytes
    group: list[FragmentReceipt] = []
    for fragment in part.fragments:
        if fragment.name not in wanted or not needed(fragment):
            continue
        end = fragment.offset + fragment.nbytes
        if fragment.offset != stop or end - start > CHUNK:
            yield Range(part, start, stop, tuple(group))
            start, group = fragment.offset, []
        stop = end
        group.append(fragment)
    yield Range(part, start, stop, tuple(group))


def verified(
    store: Store, read: Range, specs: Mapping[str, TensorSpec]
) -> Iterator[tuple[FragmentReceipt, memoryview]]:
    """Yield what a request brings, each fragment when it has proved to be as committed."""
    if read.start == read.stop:
        return
    key = read.part.key
    try:
        data = store.get_range(key, read.start, read.stop - read.start)
    except ObjectMissing:
        raise CorruptCheckpoint(f"{key} is missing") from None
    if len(data) != read.stop - read.start:
        raise CorruptCheckpoint(f"{key} ends at byte {read.start + len(data)}: it is cut off")
    if read.start == 0:
        _check_header(data[: read.part.header_nbytes], read.part, specs)
    for fragment in read.fragments:
        found = data[fragment.offset - read.start :][: fragment.nbytes]
        if crc64(found) != fragment.crc:
            raise CorruptCheckpoint(
                f"{key} does not hold what was committed of tensor {fragment.name!r}, "
                f"elements {fragment.start} to {fragment.start + fragment.count}"
            )
        yield fragment, found


def _check_header(found: memoryview, part: Part, specs: Mapping[str, TensorSpec]) -> None:
    """Check that a part names, types and places its tensors as the commit does."""
    if crc64(found) != part.header_crc:
        raise CorruptCheckpoint(f"the header of {part.key} is not what was committed")
    fragments = [Fragment(f.name, f.start, f.count) for f in part.fragments]
    if _described(bytes(found)) != _described(header(specs, fragments, {})):
        raise CorruptCheckpoint(f"{part.key} and COMMIT.json do not describe the same tensors")


def _described(header: bytes) -> object:
    """What a safetensors header says of its tensors; None for what is none."""
    try:
        described = json.loads(header[8:])
    except (ValueError, RecursionError):
        return None
    if isinstance(described, dict):
        described.pop("__metadata__", None)
    return described


def twice(read: Callable[[], T]) -> T:
    """Read again what is not as committed: bytes can also change on their way here."""
    try:
        return read()
    except CorruptCheckpoint:
        return read()
