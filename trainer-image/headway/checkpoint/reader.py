"""Restoring: find the newest checkpoint whose every byte is as it was committed."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from typing import Final

from pydantic import JsonValue

from .checksum import crc64
from .errors import CorruptCheckpoint, NoValidCheckpoint, ObjectMissing
from .jsontree import loads
from .layout import CHECKPOINTS, CheckpointId, CommitKey, parse_checkpoint_key
from .manifest import Commit, FragmentReceipt, ObjectReceipt, decode_commit
from .prefault import prefault
from .ranges import Range, plan, twice, verified
from .state import TensorSpec
from .stores import Store

# Half a million tensors. What claims to be a larger COMMIT.json must not fill a pod's memory.
_LARGEST_COMMIT: Final = 256 * 1024 * 1024

Into = Callable[[TensorSpec], memoryview]
"""Gives the writable flat view of unsigned bytes that a tensor is to be read into."""


Wanted = Callable[[TensorSpec], bool]
"""Says which tensors to read, such as the model's without the optimizer's."""

Within = Callable[[TensorSpec], tuple[int, int]]
"""Says which elements of a tensor to read, row-major: the first one, and how many."""


def whole(spec: TensorSpec) -> tuple[int, int]:
    """All elements."""
    return 0, spec.count


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
    return twice(partial(_load_commit, store, checkpoint))


def _load_commit(store: Store, checkpoint: CheckpointId) -> Commit:
    try:
        data = store.get_range(checkpoint.commit_key, 0, _LARGEST_COMMIT + 1)
    except ObjectMissing:
        raise CorruptCheckpoint("COMMIT.json is missing") from None
    if len(data) > _LARGEST_COMMIT:
        raise CorruptCheckpoint(f"COMMIT.json has more than {_LARGEST_COMMIT} bytes")
    try:
        commit = decode_commit(bytes(data))
    except ValueError as error:
        raise CorruptCheckpoint(str(error)) from None
    except RecursionError:
        raise CorruptCheckpoint("COMMIT.json is nested too deeply to be one") from None
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
    return twice(partial(_read_rank_state, store, commit.parts[rank].state))


def _read_rank_state(store: Store, receipt: ObjectReceipt) -> dict[str, JsonValue]:
    try:
        data = bytes(store.get_range(receipt.key, 0, receipt.size + 1))
    except ObjectMissing:
        raise CorruptCheckpoint(f"{receipt.key} is missing") from None
    if len(data) != receipt.size or crc64(data) != receipt.crc:
        raise CorruptCheckpoint(f"{receipt.key} is not what was committed")
    try:
        state = loads(data)
    except (ValueError, RecursionError):
        state = None
    if not isinstance(state, dict):
        raise CorruptCheckpoint(f"{receipt.key} does not hold a rank's state")
    return state


def read_tensors(
    store: Store,
    commit: Commit,
    into: Into,
    *,
    wanted: Wanted = lambda _: True,
    within: Within = whole,
    concurrency: int = 8,
) -> None:
    """Read tensors into memory that is there already, and verify every byte.

    Bytes are verified before they are copied. Memory in use is 16 MiB per request.

    Args:
        store: the job's root.
        commit: what to read.
        into: asked once for each wanted tensor, before anything is read. What it raises (such as
            for a tensor that the model does not have) ends the call.
        wanted: which tensors to read.
        within: which elements of them; `into` gives a view of only those.
        concurrency: requests at a time.

    Raises:
        CorruptCheckpoint: a part is missing or short, or bytes are not what was committed.
        ValueError: `into` gave a view that does not fit.
        StoreError: the store refused or failed.
    """
    specs = {spec.name: spec for spec in commit.tensors}
    targets = {
        name: _Target.of(spec, within(spec), into(spec))
        for name, spec in specs.items()
        if wanted(spec)
    }
    reads = [
        read
        for part in commit.parts
        for read in plan(part, targets, lambda fragment: targets[fragment.name].needs(fragment))
    ]
    with ThreadPoolExecutor(concurrency) as pool:
        try:
            jobs = (partial(_fetch, store, read, specs, targets) for read in reads)
            for _ in pool.map(twice, jobs):
                pass
        except BaseException:
            pool.shutdown(cancel_futures=True)
            raise


def restore_newest(
    store: Store,
    into: Into,
    rank: int | None,
    *,
    skip: Collection[CheckpointId] = (),
    choose: Callable[[Commit], Wanted] = lambda _: lambda _: True,
    within: Within = whole,
    concurrency: int = 8,
) -> Restored | None:
    """Restore the newest checkpoint that is wholly as it was committed.

    A bad checkpoint is passed over for the next older one and reported. A store that fails is
    not a bad checkpoint: that raises.

    Args:
        store: the job's root.
        into: see `read_tensors`. Asked again after a fallback.
        rank: whose own state to read; None for no rank's.
        skip: checkpoints not to try.
        choose: says for a checkpoint which of its tensors are wanted, see `read_tensors`. What it
            raises ends the call.
        within: see `read_tensors`.
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
            rank_state = None if rank is None else read_rank_state(store, commit, rank)
            wanted = choose(commit)
            read_tensors(store, commit, into, wanted=wanted, within=within, concurrency=concurrency)
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
class _Target:
    """Where elements of a tensor go.

    Attributes:
        view: their bytes.
        item: bytes per element.
        start: the first element.
        stop: the element after the last.
    """

    view: memoryview
    item: int
    start: int
    stop: int

    @classmethod
    def of(cls, spec: TensorSpec, within: tuple[int, int], view: memoryview) -> _Target:
        start, count = within
        nbytes = count * spec.item_size
        if view.readonly or (view.nbytes, view.itemsize, view.ndim) != (nbytes, 1, 1):
            raise ValueError(
                f"cannot read {nbytes} bytes of tensor {spec.name!r} into {view.nbytes} bytes in "
                f"{view.ndim} dimensions: give as many writable bytes as one flat view"
            )
        return cls(view, spec.item_size, start, start + count)

    def needs(self, fragment: FragmentReceipt) -> bool:
        return fragment.start < self.stop and self.start < fragment.start + fragment.count

    def take(self, fragment: FragmentReceipt, found: memoryview) -> None:
        first = max(self.start, fragment.start)
        last = min(self.stop, fragment.start + fragment.count)
        target = self.view[(first - self.start) * self.item : (last - self.start) * self.item]
        prefault(target)
        at = (first - fragment.start) * self.item
        target[:] = found[at : at + target.nbytes]


def _fetch(
    store: Store, read: Range, specs: Mapping[str, TensorSpec], targets: Mapping[str, _Target]
) -> None:
    for fragment, found in verified(store, read, specs):
        targets[fragment.name].take(fragment, found)
