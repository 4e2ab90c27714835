"""Restoring: find the newest checkpoint whose every byte is as it was committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import cast

from pydantic import JsonValue

from .checksum import crc64
from .errors import CorruptCheckpoint, NoValidCheckpoint, ObjectMissing
from .jsontree import loads
from .layout import CHECKPOINTS, CheckpointId, CommitKey, parse_checkpoint_key
from .manifest import Commit, FragmentReceipt, Part, decode_commit
from .state import CHUNK, TensorSpec
from .stores import Store

Into = Callable[[TensorSpec], memoryview]
"""Gives the writable flat view of unsigned bytes that a tensor is to be read into."""


@dataclass(frozen=True, slots=True)
class Listing:
    """What lies in the checkpoints' folder.

    Attributes:
        committed: checkpoints that have a COMMIT.json, newest first.
        incomplete: those that have other objects only, newest first.
    """

    committed: list[CheckpointId]
    incomplete: list[CheckpointId]


@dataclass(frozen=True, slots=True)
class Fallback:
    """A checkpoint that was passed over, and why."""

    id: CheckpointId
    reason: str


@dataclass(frozen=True, slots=True)
class Restored:
    """A checkpoint that has been read and verified.

    Attributes:
        commit: its record; `commit.objects` is the state outside tensors.
        rank_state: the rank's own state; None when it did not exist at that world size.
        fallbacks: newer checkpoints that could not be used.
    """

    commit: Commit
    rank_state: dict[str, JsonValue] | None
    fallbacks: tuple[Fallback, ...]


def scan(store: Store) -> Listing:
    """Find everything that is, was or may become a checkpoint.

    Raises:
        StoreError: the store cannot be listed. It is never taken for an empty one.
    """
    committed, seen = set(), set()
    for key in store.list(CHECKPOINTS):
        parsed = parse_checkpoint_key(key)
        if parsed is not None:
            seen.add(parsed.id)
        if isinstance(parsed, CommitKey):
            committed.add(parsed.id)
    return Listing(sorted(committed, reverse=True), sorted(seen - committed, reverse=True))


def list_commits(store: Store) -> list[CheckpointId]:
    """Return the checkpoints that were committed, newest first.

    Raises:
        StoreError: the store cannot be listed.
    """
    return scan(store).committed


def load_commit(store: Store, checkpoint: CheckpointId) -> Commit:
    """Read and verify the record of a checkpoint.

    Raises:
        CorruptCheckpoint: it is missing, torn, edited, or another checkpoint's.
        StoreError: the store refused or failed.
    """
    try:
        commit = decode_commit(store.get(checkpoint.commit_key))
    except ObjectMissing:
        raise CorruptCheckpoint("COMMIT.json is missing") from None
    except ValueError as error:
        raise CorruptCheckpoint(str(error)) from None
    if commit.id != checkpoint:
        raise CorruptCheckpoint(f"COMMIT.json is that of {commit.id}")
    return commit


def read_rank_state(store: Store, commit: Commit, rank: int) -> dict[str, JsonValue] | None:
    """Read the state that belongs to `rank`; None when it did not exist at that world size.

    Raises:
        CorruptCheckpoint: it is missing or not what was committed.
        StoreError: the store refused or failed.
    """
    if rank >= commit.world_size:
        return None
    receipt = commit.parts[rank].state
    try:
        data = store.get(receipt.key)
    except ObjectMissing:
        raise CorruptCheckpoint(f"{receipt.key} is missing") from None
    if len(data) != receipt.size or crc64(data) != receipt.crc:
        raise CorruptCheckpoint(f"{receipt.key} is not what was committed")
    return cast("dict[str, JsonValue]", loads(data))


def read_tensors(
    store: Store,
    commit: Commit,
    into: Into,
    *,
    wanted: Callable[[TensorSpec], bool] = lambda _: True,
    concurrency: int = 8,
) -> None:
    """Read tensors into memory that is there already, and verify every byte.

    Bytes are verified before they are copied. Memory in use is 16 MiB per request.

    Args:
        store: the job's root.
        commit: what to read.
        into: asked once for each wanted tensor, before anything is read. What it raises (such as
            for a tensor that the model does not have) ends the call.
        wanted: which tensors to read, such as the model's without the optimizer's.
        concurrency: requests at a time.

    Raises:
        CorruptCheckpoint: a part is missing or short, or bytes are not what was committed.
        ValueError: `into` gave a view that does not fit.
        StoreError: the store refused or failed.
    """
    specs = {spec.name: spec for spec in commit.tensors if wanted(spec)}
    targets = {name: _target(spec, into(spec)) for name, spec in specs.items()}
    reads = [read for part in commit.parts for read in _plan(part, targets)]
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            for _ in pool.map(lambda read: _fetch(store, read, specs, targets), reads):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def restore_newest(
    store: Store,
    into: Into,
    rank: int,
    *,
    skip: Collection[CheckpointId] = (),
    wanted: Callable[[TensorSpec], bool] = lambda _: True,
    concurrency: int = 8,
) -> Restored | None:
    """Restore the newest checkpoint that is wholly as it was committed.

    A bad checkpoint is passed over for the next older one and reported. A store that fails is
    not a bad checkpoint: that raises.

    Args:
        store: the job's root.
        into: see `read_tensors`. Asked again after a fallback.
        rank: whose own state to read.
        skip: checkpoints not to try.
        wanted: see `read_tensors`.
        concurrency: see `read_tensors`.

    Returns:
        What was restored, or None when nothing was ever committed (but for `skip`).

    Raises:
        NoValidCheckpoint: there are committed checkpoints and none is valid. The memory behind
            `into` may hold parts of them.
        StoreError: the store refused or failed.
    """
    fallbacks: list[Fallback] = []
    while True:
        # Listed anew each time: a live job whose checkpoint we fork may have moved on meanwhile.
        listing = scan(store)
        tried = {*skip, *(fallback.id for fallback in fallbacks)}
        candidate = next((found for found in listing.committed if found not in tried), None)
        if candidate is None:
            _refuse_to_start_over(store, fallbacks)
            return None
        try:
            commit = load_commit(store, candidate)
            rank_state = read_rank_state(store, commit, rank)
            read_tensors(store, commit, into, wanted=wanted, concurrency=concurrency)
        except CorruptCheckpoint as error:
            fallbacks.append(Fallback(candidate, error.reason))
            continue
        fallbacks += [
            Fallback(found, "it was never committed: the save was cut off, or COMMIT.json deleted")
            for found in listing.incomplete
            if found > candidate and found not in tried
        ]
        newest_first = sorted(fallbacks, key=lambda fallback: fallback.id, reverse=True)
        return Restored(commit, rank_state, tuple(newest_first))


def _refuse_to_start_over(store: Store, fallbacks: list[Fallback]) -> None:
    if fallbacks:
        tried = "; ".join(f"{fallback.id}: {fallback.reason}" for fallback in fallbacks)
        raise NoValidCheckpoint(
            f"no checkpoint under {store.uri} can be restored ({tried}). "
            f"Repair one, or delete {CHECKPOINTS}/ there to train from the start"
        )


@dataclass(frozen=True, slots=True)
class _Read:
    """Bytes of a part that are fetched in one request.

    Attributes:
        key: of the part.
        start: first byte.
        stop: byte after the last.
        header_crc: of the header, when the request starts with it.
        fragments: those that lie in these bytes.
    """

    key: str
    start: int
    stop: int
    header_crc: str | None
    fragments: tuple[FragmentReceipt, ...]


def _plan(part: Part, wanted: Collection[str]) -> Iterator[_Read]:
    """Group the wanted fragments of a part, and its header, into requests of about `CHUNK`."""
    start, stop = 0, part.header_nbytes
    header_crc: str | None = part.header_crc
    group: list[FragmentReceipt] = []
    for fragment in part.fragments:
        if fragment.name not in wanted:
            continue
        end = fragment.offset + fragment.nbytes
        if fragment.offset != stop or end - start > CHUNK:
            yield _Read(part.key, start, stop, header_crc, tuple(group))
            start, header_crc, group = fragment.offset, None, []
        stop = end
        group.append(fragment)
    yield _Read(part.key, start, stop, header_crc, tuple(group))


def _fetch(
    store: Store, read: _Read, specs: Mapping[str, TensorSpec], targets: Mapping[str, memoryview]
) -> None:
    if read.start == read.stop:
        return
    try:
        data = store.get_range(read.key, read.start, read.stop - read.start)
    except ObjectMissing:
        raise CorruptCheckpoint(f"{read.key} is missing") from None
    if len(data) != read.stop - read.start:
        raise CorruptCheckpoint(f"{read.key} ends at byte {read.start + len(data)}: it is cut off")
    first = read.fragments[0].offset if read.fragments else read.stop
    if read.header_crc is not None and crc64(data[: first - read.start]) != read.header_crc:
        raise CorruptCheckpoint(f"the header of {read.key} is not what was committed")
    for fragment in read.fragments:
        found = data[fragment.offset - read.start :][: fragment.nbytes]
        if crc64(found) != fragment.crc:
            raise CorruptCheckpoint(
                f"{read.key} does not hold what was committed of tensor {fragment.name!r}, "
                f"elements {fragment.start} to {fragment.start + fragment.count}"
            )
        at = fragment.start * specs[fragment.name].item_size
        targets[fragment.name][at : at + fragment.nbytes] = found


def _target(spec: TensorSpec, view: memoryview) -> memoryview:
    if view.readonly or (view.nbytes, view.itemsize, view.ndim) != (spec.nbytes, 1, 1):
        raise ValueError(
            f"cannot read tensor {spec.name!r} into {view.nbytes} bytes in {view.ndim} dimensions: "
            f"give {spec.nbytes} writable bytes as one flat view"
        )
    return view
