"""Damage of every kind: the restore falls back to what is whole, and says why."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest
from checkpoint_world import NOW, Memory, contents, make_state, restore, save, write_parts

from headway.checkpoint import fence
from headway.checkpoint.checksum import crc64
from headway.checkpoint.errors import (
    CommitRefused,
    CorruptCheckpoint,
    Fenced,
    NoValidCheckpoint,
    StoreUnavailable,
)
from headway.checkpoint.jsontree import canonical
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import PartReceipt, decode_commit, encode_commit
from headway.checkpoint.reader import list_commits, load_commit, restore_newest, scan
from headway.checkpoint.retention import prune
from headway.checkpoint.retry import RetryPolicy
from headway.checkpoint.stores import Store, open_store
from headway.checkpoint.writer import commit, write_part

OLDER = CheckpointId(generation=1, step=10)
NEWER = CheckpointId(generation=1, step=20)


def flip(path: Path, position: int) -> None:
    data = bytearray(path.read_bytes())
    data[position] ^= 0x10
    path.write_bytes(data)


def part(folder: Path, rank: int = 1) -> Path:
    return folder / f"part-{rank:05d}-of-00002.safetensors"


def header_length(path: Path) -> int:
    return 8 + int.from_bytes(path.read_bytes()[:8], "little")


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "commit gone": (lambda d: (d / "COMMIT.json").unlink(), "never committed"),
    "commit empty": (lambda d: (d / "COMMIT.json").write_bytes(b""), "torn"),
    "commit cut": (
        lambda d: (d / "COMMIT.json").write_bytes((d / "COMMIT.json").read_bytes()[:-9]),
        "torn",
    ),
    "commit edited": (
        lambda d: (d / "COMMIT.json").write_bytes(
            (d / "COMMIT.json").read_bytes().replace(b'"step":20', b'"step":21')
        ),
        "checksum",
    ),
    "commit of another": (
        lambda d: (d / "COMMIT.json").write_bytes(
            (d.parent / "000000000010-000001" / "COMMIT.json").read_bytes()
        ),
        "that of step 10",
    ),
    "part gone": (lambda d: part(d).unlink(), "part-00001-of-00002.safetensors is missing"),
    "part empty": (lambda d: part(d).write_bytes(b""), "cut off"),
    "part cut by one byte": (lambda d: part(d).write_bytes(part(d).read_bytes()[:-1]), "cut off"),
    "header length flipped": (lambda d: flip(part(d), 0), "header of"),
    "header flipped": (lambda d: flip(part(d), 20), "header of"),
    "first data byte flipped": (lambda d: flip(part(d), header_length(part(d))), "of tensor"),
    "last data byte flipped": (lambda d: flip(part(d), -1), "of tensor"),
    "other part's data flipped": (lambda d: flip(part(d, 0), -1), "part-00000"),
    "rank state flipped": (lambda d: flip(d / "rank-00000.json", 5), "rank-00000.json is not"),
    "rank state gone": (lambda d: (d / "rank-00000.json").unlink(), "rank-00000.json is missing"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_checkpoint_is_passed_over_and_reported(
    store: Store, root: Path, damage: str
) -> None:
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    do, reason = DAMAGES[damage]
    do(root / NEWER.directory)
    restored, found = restore(store)
    assert restored.commit.id == OLDER
    assert found == contents(make_state(10))
    assert restored.rank_state == {"rng": [0, 2**70], "cursor": 10}
    assert [fallback.id for fallback in restored.fallbacks] == [NEWER]
    assert reason in restored.fallbacks[0].reason


def test_a_flip_of_any_byte_of_a_checkpoint_is_noticed(store: Store, root: Path) -> None:
    """No byte is unguarded: at each of 300 places in all objects a flip causes a fallback."""
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    seed = 7
    print(f"seed {seed}")
    rng = random.Random(seed)
    # rank 1's own state is not read by rank 0.
    files = [f for f in (root / NEWER.directory).iterdir() if f.name != "rank-00001.json"]
    places = [(file, at) for file in sorted(files) for at in range(file.stat().st_size)]
    for file, at in rng.sample(places, 300):
        original = file.read_bytes()
        flip(file, at)
        restored, found = restore(store)
        assert restored.commit.id == OLDER, f"{file.name} byte {at}"
        assert found == contents(make_state(10))
        file.write_bytes(original)
    assert restore(store)[0].commit.id == NEWER


def test_every_flip_in_a_commit_is_noticed(store: Store) -> None:
    data = encode_commit(save(store, NEWER, make_state(20)))
    for at in range(len(data)):
        flipped = bytearray(data)
        flipped[at] ^= 1 << (at % 8)
        with pytest.raises(ValueError, match=r"COMMIT\.json"):
            decode_commit(bytes(flipped))


def test_several_bad_checkpoints_are_all_reported_newest_first(store: Store, root: Path) -> None:
    third = CheckpointId(generation=1, step=30)
    for checkpoint in (OLDER, NEWER, third):
        save(store, checkpoint, make_state(checkpoint.step))
    flip(part(root / NEWER.directory), -1)
    (root / third.commit_key).unlink()
    restored, _ = restore(store)
    assert restored.commit.id == OLDER
    assert [fallback.id for fallback in restored.fallbacks] == [third, NEWER]


def test_nothing_committed_is_none_and_touches_no_memory(store: Store) -> None:
    write_parts(store, NEWER, make_state(20), 2)
    memory = Memory()
    assert restore_newest(store, memory, 0) is None
    assert memory.buffers == {}


def test_only_bad_checkpoints_raise_instead_of_starting_over(store: Store, root: Path) -> None:
    save(store, NEWER, make_state(20))
    flip(part(root / NEWER.directory), -1)
    with pytest.raises(NoValidCheckpoint, match=r"step 20 of generation 1.*delete ckpt/"):
        restore(store)


def test_a_store_that_cannot_be_reached_is_never_an_empty_one() -> None:
    policy = RetryPolicy(deadline=0.3, request_timeout=1.0, first_backoff=0.05)
    dead = open_store(
        "s3://bucket/job",
        endpoint="http://127.0.0.1:9",
        access_key="A",
        secret_key="B",
        retry=policy,
    )
    for ask in (
        lambda: restore_newest(dead, Memory(), 0),
        lambda: list_commits(dead),
        lambda: load_commit(dead, NEWER),
        lambda: fence.current(dead),
    ):
        with pytest.raises(StoreUnavailable, match="connection was refused"):
            ask()


def test_a_store_that_fails_while_tensors_are_read_is_not_a_fallback(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))

    def fail(*_: object) -> memoryview:
        raise StoreUnavailable("the store is failing")

    monkeypatch.setattr(Store, "get_range", fail)
    with pytest.raises(StoreUnavailable):
        restore(store)


def test_a_checkpoint_deleted_while_it_is_read_gives_way_to_one_committed_meanwhile(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forking a live job that keeps one checkpoint must not end with none."""
    save(store, OLDER, make_state(10))
    real = Store.get_range

    def overtaken(self: Store, key: str, start: int, length: int) -> memoryview:
        monkeypatch.setattr(Store, "get_range", real)
        save(store, NEWER, make_state(20))
        prune(store, generation=1, keep_last=1)
        return real(self, key, start, length)

    monkeypatch.setattr(Store, "get_range", overtaken)
    restored, found = restore(store)
    assert restored.commit.id == NEWER
    assert found == contents(make_state(20))


# --- commits that must be refused ---------------------------------------------------------------


def refused(store: Store, receipts: list[PartReceipt], reason: str) -> None:
    with pytest.raises(CommitRefused, match=reason):
        commit(store, NEWER, receipts, created=NOW)
    assert scan(store).committed == []


def test_a_commit_without_receipts_is_refused(store: Store) -> None:
    refused(store, [], "one world size")


def test_a_commit_with_a_missing_receipt_is_refused(store: Store) -> None:
    receipts = write_parts(store, NEWER, make_state(20), 3)
    for missing in range(3):
        left = [receipt for receipt in receipts if receipt.rank != missing]
        refused(store, left, "not one of each from 0 to 2")


def test_a_commit_with_a_receipt_twice_is_refused(store: Store) -> None:
    receipts = write_parts(store, NEWER, make_state(20), 2)
    refused(store, [*receipts, receipts[0]], r"ranks \[0, 0, 1\]")
    refused(store, [receipts[0], receipts[0]], r"ranks \[0, 0\]")


def test_a_commit_with_a_receipt_of_another_checkpoint_is_refused(store: Store) -> None:
    mine = write_parts(store, NEWER, make_state(20), 2)
    zombie = CheckpointId(generation=0, step=20)
    other = write_parts(store, zombie, make_state(20), 2)
    refused(store, [mine[0], other[1]], "receipts of .*generation 0")


def test_a_commit_with_receipts_of_two_world_sizes_is_refused(store: Store) -> None:
    two, three = (write_parts(store, NEWER, make_state(20), n) for n in (2, 3))
    refused(store, [two[0], three[1], three[2]], "one world size")


def test_a_commit_of_ranks_that_disagree_on_the_state_is_refused(store: Store) -> None:
    """Each rank's slice is right by its own view, together they leave a hole."""
    first = write_part(store, NEWER, 0, 2, make_state(20), {})
    second = write_part(store, NEWER, 1, 2, make_state(20, [("model.weight", "F32", (4, 4))]), {})
    refused(store, [first, second], "cannot commit")


def test_a_commit_whose_receipt_lost_or_doubled_a_fragment_is_refused(store: Store) -> None:
    receipts = write_parts(store, NEWER, make_state(20), 2)
    fields = receipts[1].model_dump()
    cut = fields["fragments"][-1]
    fields |= {"fragments": fields["fragments"][:-1], "size": fields["size"] - cut["nbytes"]}
    refused(store, [receipts[0], PartReceipt.model_validate(fields)], "no part|ends at element")
    fields = receipts[1].model_dump()
    again = fields["fragments"][-1] | {"offset": fields["size"]}
    fields |= {
        "fragments": [*fields["fragments"], again],
        "size": fields["size"] + again["nbytes"],
    }
    refused(store, [receipts[0], PartReceipt.model_validate(fields)], "twice")


@pytest.mark.parametrize("name", ["part-00001-of-00002.safetensors", "rank-00001.json"])
def test_a_commit_over_a_missing_or_short_object_is_refused(
    store: Store, root: Path, name: str
) -> None:
    receipts = write_parts(store, NEWER, make_state(20), 2)
    file = root / NEWER.directory / name
    file.write_bytes(file.read_bytes()[:-1])
    refused(store, receipts, f"{name} has .* bytes")
    file.unlink()
    refused(store, receipts, f"{name} is not in the store")


# --- generations --------------------------------------------------------------------------------


def test_a_zombie_cannot_commit_once_a_newer_generation_has_claimed_the_job(store: Store) -> None:
    fence.claim(store, 1, "pod-a")
    receipts = write_parts(store, NEWER, make_state(20), 2)
    fence.claim(store, 2, "pod-b")
    with pytest.raises(Fenced, match=r"generation 2 \(pod-b\)") as raised:
        commit(store, NEWER, receipts, created=NOW)
    assert (raised.value.newer, raised.value.holder) == (2, "pod-b")
    assert list_commits(store) == []


def test_two_generations_that_write_at_the_same_time_do_not_touch_each_other(store: Store) -> None:
    """Even a zombie that slipped through with a higher step is not what a restore takes."""
    zombie, newer = CheckpointId(generation=1, step=40), CheckpointId(generation=2, step=30)
    zombies_state, newers_state = make_state(40), make_state(30)
    theirs, ours = [], []
    for rank in range(2):
        theirs.append(write_part(store, zombie, rank, 2, zombies_state, {}))
        ours.append(write_part(store, newer, rank, 2, newers_state, {}))
    commit(store, newer, ours, created=NOW)
    commit(store, zombie, theirs, created=NOW)
    restored, found = restore(store)
    assert (restored.commit.id, found) == (newer, contents(newers_state))


def test_a_claim_of_an_older_or_of_anothers_generation_is_fenced(store: Store) -> None:
    assert fence.current(store) is None
    fence.check(store, 0)
    fence.claim(store, 5, "pod-a")
    fence.claim(store, 5, "pod-a")
    fence.check(store, 5)
    for generation, holder in ((4, "pod-a"), (5, "pod-b")):
        with pytest.raises(Fenced):
            fence.claim(store, generation, holder)
    with pytest.raises(Fenced):
        fence.check(store, 4)
    assert fence.claim(store, 6, "pod-b") == fence.current(store)


def test_a_claim_that_was_overwritten_at_once_is_fenced(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = Store.put

    def race(self: Store, key: str, data: bytes, **options: int) -> None:
        real(self, key, data)
        real(self, key, fence.Marker(generation=9, holder="pod-z").model_dump_json().encode())

    monkeypatch.setattr(Store, "put", race)
    with pytest.raises(Fenced, match="pod-z"):
        fence.claim(store, 5, "pod-a")


def test_a_torn_marker_fences_nobody(store: Store) -> None:
    store.put("generation.json", b"")
    assert fence.current(store) is None
    fence.claim(store, 1, "pod-a")
    fence.check(store, 1)


# --- the process dies at any write --------------------------------------------------------------


class _Killed(BaseException):
    """Stands for the end of the process: nothing may catch it."""


class _Mortal:
    """Lets a number of writes and deletes through and kills the process at the next."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, writes: int) -> None:
        self.left = writes
        for name in ("put", "delete"):
            monkeypatch.setattr(Store, name, self._wrap(getattr(Store, name)))

    def _wrap(self, real: Callable[..., None]) -> Callable[..., None]:
        def write(store: Store, key: str, *args: object, **options: object) -> None:
            if self.left == 0:
                raise _Killed
            self.left -= 1
            real(store, key, *args, **options)

        return write


def life(store: Store) -> None:
    """One save and its clean-up, as a lead does them."""
    fence.claim(store, 2, "pod-a")
    checkpoint = CheckpointId(generation=2, step=30)
    receipts = write_parts(store, checkpoint, make_state(30), 2)
    commit(store, checkpoint, receipts, created=NOW)
    prune(store, generation=2, keep_last=1)


def test_whatever_write_is_the_last_there_is_a_whole_checkpoint_and_the_next_life_ends_well(
    tmp_path: Path,
) -> None:
    died_at = []
    for writes in range(100):
        store = open_store(str(tmp_path / str(writes)))
        save(store, OLDER, make_state(10))
        save(store, NEWER, make_state(20))
        with pytest.MonkeyPatch.context() as patch:
            _Mortal(patch, writes)
            try:
                life(store)
            except _Killed:
                died_at.append(writes)
        restored, found = restore(store)
        assert found == contents(make_state(restored.commit.step)), f"after {writes} writes"
        assert restored.commit.step in (20, 30)
        life(store)
        assert [found.step for found in list_commits(store)] == [30]
        assert scan(store).incomplete == []
        if writes not in died_at:
            break
    # claim, 2 parts, 2 rank states, commit, hint, and 5 deletes of each of two checkpoints
    assert len(died_at) == 17


def test_a_commit_that_is_deleted_halfway_is_not_taken_for_a_bad_checkpoint(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """COMMIT.json goes first, so what is left is not even looked at."""
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    with monkeypatch.context() as patch:
        _Mortal(patch, 1)
        with pytest.raises(_Killed):
            prune(store, generation=1, keep_last=1)
    assert scan(store).incomplete == [OLDER]
    restored, _ = restore(store)
    assert restored.commit.id == NEWER
    assert restored.fallbacks == ()


def test_a_commit_that_matches_its_checksum_but_names_foreign_objects_is_refused(
    store: Store,
) -> None:
    """A record that was made by hand cannot point a restore at other objects."""
    record = save(store, NEWER, make_state(20))
    body = record.model_dump(mode="json")
    body["parts"][0]["key"] = "../secret"

    store.put(NEWER.commit_key, canonical({**body, "crc": crc64(canonical(body))}))
    with pytest.raises(CorruptCheckpoint, match="do not belong"):
        load_commit(store, NEWER)
