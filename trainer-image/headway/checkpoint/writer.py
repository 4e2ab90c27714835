"""Saving: every rank sends its part, then one of them commits."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from datetime import datetime

from pydantic import JsonValue, ValidationError

from . import fence
from .checksum import crc64
from .errors import CommitRefused, ObjectMissing, StoreError
from .jsontree import dumps
from .layout import LATEST, CheckpointId
from .manifest import (
    Commit,
    FragmentReceipt,
    ObjectReceipt,
    Part,
    PartReceipt,
    encode_commit,
    first_problem,
)
from .partfile import header, in_file_order
from .state import CHUNK, Fragment, TensorSpec, partition
from .stores import Store

_REQUESTS_AT_ONCE = 8


def write_part(
    store: Store,
    checkpoint: CheckpointId,
    rank: int,
    world_size: int,
    tensors: Mapping[str, tuple[TensorSpec, memoryview]],
    rank_state: Mapping[str, JsonValue],
    objects: JsonValue = None,
    rank_zero: Collection[str] = (),
) -> PartReceipt:
    """Send what `rank` writes of a checkpoint: its slice of the tensors and its own state.

    Of each tensor only the bytes that fall to this rank are read (see `state.partition`); they
    must not change until this returns. Checksums are computed while sending.

    Args:
        store: the job's root.
        checkpoint: which one.
        rank: 0 to `world_size` - 1.
        world_size: how many ranks write.
        tensors: the whole state by name: specs, and row-major bytes as a flat view of unsigned
            bytes. Equal specs on all ranks.
        rank_state: what belongs to this rank alone: random generators, loader position.
        objects: state outside tensors that all ranks share; kept from rank 0 alone.
        rank_zero: tensors that only rank 0 writes, because the other ranks' values differ and
            don't count (the buffers of a DDP model).

    Returns:
        The receipt that `commit` needs.

    Raises:
        ValueError: a view does not fit its spec, or a state is not JSON.
        StoreError: the store refused or failed.
    """
    specs = {name: spec for name, (spec, _) in tensors.items()}
    _check_views(tensors)
    mine = partition(specs.values(), world_size, rank_zero)[rank]
    pieces = [(f, _view(tensors[f.name], f)) for f in in_file_order(specs, mine)]
    return send_part(
        store,
        checkpoint,
        rank,
        world_size,
        specs=specs,
        pieces=pieces,
        rank_state=rank_state,
        objects=objects,
    )


def send_part(  # noqa: PLR0913 (what `write_part` takes, taken apart)
    store: Store,
    checkpoint: CheckpointId,
    rank: int,
    world_size: int,
    *,
    specs: Mapping[str, TensorSpec],
    pieces: Sequence[tuple[Fragment, memoryview]],
    rank_state: Mapping[str, JsonValue],
    objects: JsonValue = None,
    check: Callable[[], object] = lambda: None,
) -> PartReceipt:
    """Send fragments that are chosen already; see `write_part`.

    Args:
        store: the job's root.
        checkpoint: which one.
        rank: 0 to `world_size` - 1.
        world_size: how many ranks write.
        specs: the whole state by name.
        pieces: what `rank` writes, in the order of `partfile.in_file_order`: fragments of at most
            `CHUNK` bytes, and their bytes.
        rank_state: what belongs to this rank alone.
        objects: state outside tensors that all ranks share; kept from rank 0 alone.
        check: called between pieces; what it raises ends the upload.

    Raises:
        ValueError: a state is not JSON.
        StoreError: the store refused or failed.
    """
    about = {
        "step": str(checkpoint.step),
        "generation": str(checkpoint.generation),
        "rank": str(rank),
    }
    fragments = [fragment for fragment, _ in pieces]
    stream = _PartStream(header(specs, fragments, about), [view for _, view in pieces], check)
    state = dumps(dict(rank_state))
    key, state_key = checkpoint.part_key(rank, world_size), checkpoint.rank_key(rank)
    stream.send(store, key)
    store.put(state_key, state)
    return PartReceipt(
        id=checkpoint,
        rank=rank,
        world_size=world_size,
        key=key,
        size=stream.size,
        header_nbytes=len(stream.header),
        header_crc=crc64(stream.header),
        fragments=_receipts(fragments, stream),
        state=ObjectReceipt(key=state_key, size=len(state), crc=crc64(state)),
        tensors=tuple(specs[name] for name in sorted(specs)) if rank == 0 else None,
        objects=objects if rank == 0 else None,
    )


def commit(
    store: Store,
    checkpoint: CheckpointId,
    receipts: Sequence[PartReceipt],
    *,
    created: datetime,
    claimed: int | None = None,
    metrics: Mapping[str, float] | None = None,
    resumed_from: CheckpointId | None = None,
    code_version: str = "",
) -> Commit:
    """Make the parts a checkpoint, by writing COMMIT.json last.

    Args:
        store: the job's root.
        checkpoint: which one.
        receipts: of all ranks, in any order.
        created: now, with a time zone.
        claimed: the generation that this group holds now; None for the checkpoint's own. A group
            that has restarted in place still commits what it saved before.
        metrics: values at this step; those that are not finite are left out.
        resumed_from: what the writing group itself had restored.
        code_version: what was running.

    Returns:
        The commit as written.

    Raises:
        CommitRefused: the receipts, or the objects in the store, do not add up; nothing was
            committed.
        Fenced: a newer generation has claimed the job; nothing was committed.
        StoreError: the store refused or failed. After `StoreUnavailable` the commit may exist:
            calling again is safe.
    """
    record = _record(checkpoint, receipts, created, metrics or {}, resumed_from, code_version)
    _check_stored(store, record)
    fence.check(store, checkpoint.generation if claimed is None else claimed)
    store.put(checkpoint.commit_key, encode_commit(record))
    with suppress(StoreError):
        store.put(LATEST, checkpoint.directory.encode())
    return record


class _PartStream:
    """The bytes of a part, readable again when sending must be repeated.

    Attributes:
        header: everything before the data.
        views: the data, one view per fragment.
        crcs: of each view, once all has been read.
    """

    def __init__(
        self, header: bytes, views: Sequence[memoryview], check: Callable[[], object]
    ) -> None:
        self._check = check
        self.header = header
        self.crcs: list[str] = []
        self.views = views
        self.size = len(header) + sum(view.nbytes for view in views)

    def __iter__(self) -> Iterator[bytes | memoryview]:
        self.crcs = []
        yield self.header
        for view in self.views:
            self._check()
            self.crcs.append(crc64(view))
            if view.nbytes:
                yield view

    def send(self, store: Store, key: str) -> None:
        """Write the part; a small one in a single request."""
        if self.size <= CHUNK:
            store.put(key, b"".join(self))
        else:
            store.put(key, self, size=self.size)


def _check_views(tensors: Mapping[str, tuple[TensorSpec, memoryview]]) -> None:
    for name, (spec, view) in tensors.items():
        if spec.name != name:
            raise ValueError(f"the tensor under {name!r} is named {spec.name!r} in its spec")
        if (view.nbytes, view.itemsize, view.ndim) != (spec.nbytes, 1, 1):
            raise ValueError(
                f"the view of {name!r} has {view.nbytes} bytes in {view.ndim} dimensions: "
                f"give {spec.nbytes} bytes as one flat view, such as memoryview(…).cast('B')"
            )


def _view(tensor: tuple[TensorSpec, memoryview], fragment: Fragment) -> memoryview:
    spec, view = tensor
    start = fragment.start * spec.item_size
    return view[start : start + fragment.count * spec.item_size]


def _receipts(fragments: Sequence[Fragment], stream: _PartStream) -> tuple[FragmentReceipt, ...]:
    offset = len(stream.header)
    made = []
    for fragment, view, crc in zip(fragments, stream.views, stream.crcs, strict=True):
        made.append(
            FragmentReceipt(
                name=fragment.name,
                start=fragment.start,
                count=fragment.count,
                offset=offset,
                nbytes=view.nbytes,
                crc=crc,
            )
        )
        offset += view.nbytes
    return tuple(made)


def _record(
    checkpoint: CheckpointId,
    receipts: Sequence[PartReceipt],
    created: datetime,
    metrics: Mapping[str, float],
    resumed_from: CheckpointId | None,
    code_version: str,
) -> Commit:
    first = _check_receipts(checkpoint, receipts)
    try:
        return Commit(
            generation=checkpoint.generation,
            step=checkpoint.step,
            world_size=first.world_size,
            created=created,
            tensors=first.tensors or (),
            parts=tuple(Part.of(r) for r in sorted(receipts, key=lambda r: r.rank)),
            objects=first.objects,
            metrics={name: value for name, value in metrics.items() if math.isfinite(value)},
            resumed_from=resumed_from,
            code_version=code_version,
        )
    except ValidationError as error:
        raise CommitRefused(f"cannot commit {checkpoint}: {first_problem(error)}") from error


def _check_receipts(checkpoint: CheckpointId, receipts: Sequence[PartReceipt]) -> PartReceipt:
    """Check that there is one receipt per rank of this checkpoint; return rank 0's."""
    worlds = {receipt.world_size for receipt in receipts}
    if len(worlds) != 1:
        raise CommitRefused(
            f"cannot commit {checkpoint}: the receipts must be of one world size, not {worlds}"
        )
    if foreign := {str(receipt.id) for receipt in receipts if receipt.id != checkpoint}:
        raise CommitRefused(f"cannot commit {checkpoint}: there are receipts of {foreign}")
    world_size = worlds.pop()
    ranks = sorted(receipt.rank for receipt in receipts)
    if ranks != list(range(world_size)):
        raise CommitRefused(
            f"cannot commit {checkpoint}: the receipts are of ranks {ranks}, "
            f"not one of each from 0 to {world_size - 1}"
        )
    return min(receipts, key=lambda receipt: receipt.rank)


def _check_stored(store: Store, record: Commit) -> None:
    """Check that every object is in the store with the bytes that its receipt says."""
    sizes = {part.key: part.size for part in record.parts}
    sizes |= {part.state.key: part.state.size for part in record.parts}
    with ThreadPoolExecutor(_REQUESTS_AT_ONCE) as pool:
        found = dict(zip(sizes, pool.map(lambda key: _size(store, key), sizes), strict=True))
    for key, size in sizes.items():
        if found[key] != size:
            stored = "is not in the store" if found[key] is None else f"has {found[key]} bytes"
            raise CommitRefused(f"cannot commit {record.id}: {key} {stored}, sent were {size}")


def _size(store: Store, key: str) -> int | None:
    try:
        return store.size(key)
    except ObjectMissing:
        return None
