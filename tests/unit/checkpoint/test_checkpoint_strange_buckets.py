"""Buckets that somebody has damaged, edited or filled with other things."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from unittest.mock import patch

import pytest
from checkpoint_world import contents, make_state, restore, save

from headway.checkpoint import reader
from headway.checkpoint.checksum import crc64
from headway.checkpoint.jsontree import canonical
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import Commit
from headway.checkpoint.reader import list_commits
from headway.checkpoint.retention import prune
from headway.checkpoint.stores import Store

OLDER = CheckpointId(generation=1, step=10)
NEWER = CheckpointId(generation=1, step=20)
LATER = CheckpointId(generation=2, step=5)


def is_passed_over(store: Store, reason: str, bad: CheckpointId = NEWER, rank: int = 0) -> None:
    """Check that a restore takes OLDER whole and says what is wrong with `bad`."""
    restored, found = restore(store, rank=rank)
    assert restored.commit.id == OLDER
    expected = contents(make_state(10))
    assert {name: found[name] for name in expected} == expected
    assert [fallback.id for fallback in restored.fallbacks][:1] == [bad]
    assert reason in restored.fallbacks[0].reason
    assert "\n" not in restored.fallbacks[0].reason


# --- COMMIT.json is anything --------------------------------------------------------------------

BYTES: dict[str, tuple[bytes, str]] = {
    "nothing": (b"", "torn"),
    "null": (b"null", "checksum"),
    "a list": (b"[]", "checksum"),
    "an empty object": (b"{}", "checksum"),
    "only a checksum": (b'{"crc":"0000000000000000"}', "checksum"),
    "not UTF-8": (b"\xff\xfe\x00{", "torn"),
    "a byte order mark": (b"\xef\xbb\xbf{}", "torn"),
    "a number of 5,000 digits": (b'{"step":' + b"9" * 5000 + b"}", "torn"),
    "not a number": (b'{"step":NaN,"crc":"0"}', ""),
    "a lone surrogate": (b'{"a":"\\ud800","crc":"0"}', "checksum"),
    "100,000 nested lists": (b"[" * 100_000 + b"]" * 100_000, "nested too deeply"),
    "100,000 nested objects": (b'{"a":' * 100_000 + b"1" + b"}" * 100_000, "nested too deeply"),
    "a nest that only Python's encoder refuses": (
        b'{"crc":"0","a":' + b"[" * 900 + b"]" * 900 + b"}",
        "",
    ),
    "random bytes": (bytes(range(256)) * 40, "torn"),
}


@pytest.mark.parametrize("what", BYTES)
def test_whatever_stands_in_place_of_a_commit_is_passed_over(store: Store, what: str) -> None:
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    data, reason = BYTES[what]
    store.put(NEWER.commit_key, data)
    is_passed_over(store, reason)


def test_a_commit_too_large_to_be_one_is_not_read_into_memory(store: Store) -> None:
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    size = store.size(OLDER.commit_key)
    store.put(NEWER.commit_key, b"[" + b"0," * 50_000 + b"0]")
    with patch.object(reader, "_LARGEST_COMMIT", size):
        is_passed_over(store, f"more than {size} bytes")


# --- COMMIT.json was edited by somebody who knows its checksum ------------------------------------


def _tensor(body: dict[str, Any], name: str) -> dict[str, Any]:
    return next(tensor for tensor in body["tensors"] if tensor["name"] == name)


def _swap_names(body: dict[str, Any]) -> None:
    """Two tensors of the same type and size change places."""
    names = {"model.a": "model.b", "model.b": "model.a"}
    for part in body["parts"]:
        for fragment in part["fragments"]:
            fragment["name"] = names.get(fragment["name"], fragment["name"])


EDITS: dict[str, tuple[Callable[[dict[str, Any]], object], str]] = {
    "another dtype of the same size": (
        lambda b: _tensor(b, "model.a").update(dtype="I32"),
        "do not describe the same tensors",
    ),
    "another dtype": (lambda b: _tensor(b, "model.a").update(dtype="F64"), "wrong length"),
    "an unknown dtype": (lambda b: _tensor(b, "model.a").update(dtype="F33"), "unknown dtype"),
    "a shape turned round": (
        lambda b: _tensor(b, "model.a").update(shape=[3, 2]),
        "do not describe the same tensors",
    ),
    "a larger shape": (lambda b: _tensor(b, "model.a").update(shape=[2, 4]), "ends at element"),
    "a negative shape": (lambda b: _tensor(b, "model.a").update(shape=[-2, -3]), "shape"),
    "two names changed places": (_swap_names, "do not describe the same tensors"),
    "a tensor less": (lambda b: b["tensors"].pop(0), "unknown tensors"),
    "a tensor twice": (lambda b: b["tensors"].append(b["tensors"][0]), "the same name"),
    "a part less": (lambda b: b["parts"].pop(), "parts are not those of ranks"),
    "parts in another order": (lambda b: b["parts"].reverse(), "parts are not those of ranks"),
    "another world size": (lambda b: b.update(world_size=3), "parts are not those of ranks"),
    "a part that lies elsewhere": (
        lambda b: b["parts"][0].update(key=OLDER.part_key(0, 2)),
        "do not belong to",
    ),
    "a rank's state that lies elsewhere": (
        lambda b: b["parts"][0]["state"].update(key=OLDER.rank_key(0)),
        "do not belong to",
    ),
    "a fragment moved": (
        lambda b: b["parts"][0]["fragments"][0].update(offset=0),
        "do not follow each other",
    ),
    "another checksum of a header": (
        lambda b: b["parts"][0].update(header_crc="0" * 16),
        "header of",
    ),
    "another checksum of a rank's state": (
        lambda b: b["parts"][0]["state"].update(crc="0" * 16),
        "rank-00000.json is not what was committed",
    ),
    "a rank's state said to be longer": (
        lambda b: b["parts"][0]["state"].update(size=10**15),
        "rank-00000.json is not what was committed",
    ),
    "another step": (lambda b: b.update(step=30), "do not belong to"),
    "a newer format": (lambda b: b.update(format=2), "format"),
    "an unknown field": (lambda b: b.update(surprise=1), "surprise"),
    "no time": (lambda b: b.pop("created"), "created"),
}


@pytest.mark.parametrize("edit", EDITS)
def test_an_edited_commit_is_passed_over_though_its_own_checksum_is_right(
    store: Store, edit: str
) -> None:
    shapes = [("model.a", "F32", (2, 3)), ("model.b", "F32", (2, 3)), ("step", "I64", ())]
    save(store, OLDER, make_state(10))
    record = save(store, NEWER, make_state(20, shapes))
    change, reason = EDITS[edit]
    body = record.model_dump(mode="json")
    change(body)
    store.put(NEWER.commit_key, canonical({**body, "crc": crc64(canonical(body))}))
    is_passed_over(store, reason)


def test_a_rank_state_that_is_no_state_is_passed_over(store: Store) -> None:
    for data in (b"[1]", b"{", b"[" * 100_000):
        save(store, OLDER, make_state(10))
        record = save(store, NEWER, make_state(20))
        store.put(NEWER.rank_key(0), data)
        put_edited(
            store,
            record,
            lambda body, data=data: body["parts"][0]["state"].update(
                size=len(data), crc=crc64(data)
            ),
        )
        is_passed_over(store, "does not hold a rank's state")


def put_edited(store: Store, record: Commit, change: Callable[[dict[str, Any]], object]) -> None:
    body = record.model_dump(mode="json")
    change(body)
    store.put(record.id.commit_key, canonical({**body, "crc": crc64(canonical(body))}))


# --- objects in each other's place ----------------------------------------------------------------


def _copy(store: Store, source: str, target: str) -> None:
    store.put(target, store.get(source))


def _swap(store: Store, one: str, other: str) -> None:
    first, second = store.get(one), store.get(other)
    store.put(one, second)
    store.put(other, first)


MOVES: dict[str, tuple[Callable[[Store], object], str]] = {
    "the parts are swapped": (
        lambda s: _swap(s, NEWER.part_key(0, 2), NEWER.part_key(1, 2)),
        "part-0000",
    ),
    "a part of the older checkpoint": (
        lambda s: _copy(s, OLDER.part_key(1, 2), NEWER.part_key(1, 2)),
        "part-00001-of-00002",
    ),
    "the ranks' states are swapped": (
        lambda s: _swap(s, NEWER.rank_key(0), NEWER.rank_key(1)),
        "rank-00000.json is not what was committed",
    ),
    "a rank's state of the older checkpoint": (
        lambda s: _copy(s, OLDER.rank_key(0), NEWER.rank_key(0)),
        "rank-00000.json is not what was committed",
    ),
    "the older checkpoint's commit": (
        lambda s: _copy(s, OLDER.commit_key, NEWER.commit_key),
        "that of step 10 of generation 1",
    ),
    "a part in place of the commit": (
        lambda s: _copy(s, NEWER.part_key(0, 2), NEWER.commit_key),
        "torn",
    ),
    "the commit in place of a part": (
        lambda s: _copy(s, NEWER.commit_key, NEWER.part_key(0, 2)),
        "part-00000-of-00002",
    ),
}


@pytest.mark.parametrize("move", MOVES)
def test_objects_in_each_others_place_are_noticed(store: Store, move: str) -> None:
    save(store, OLDER, make_state(10))
    save(store, NEWER, make_state(20))
    do, reason = MOVES[move]
    do(store)
    is_passed_over(store, reason)


def test_a_checkpoint_copied_under_a_newer_name_is_not_that_newer_one(store: Store) -> None:
    save(store, OLDER, make_state(10))
    for key in store.list(OLDER.directory):
        _copy(store, key, key.replace(OLDER.directory, LATER.directory))
    is_passed_over(store, "that of step 10 of generation 1", bad=LATER)


def test_a_commit_alone_in_a_newer_place_is_passed_over(store: Store) -> None:
    save(store, OLDER, make_state(10))
    _copy(store, OLDER.commit_key, LATER.commit_key)
    is_passed_over(store, "that of step 10 of generation 1", bad=LATER)


def test_bytes_after_the_end_of_a_part_hurt_nobody(store: Store) -> None:
    save(store, NEWER, make_state(20))
    store.put(NEWER.part_key(0, 2), store.get(NEWER.part_key(0, 2)) + b"more")
    restored, found = restore(store)
    assert (restored.fallbacks, found) == ((), contents(make_state(20)))


# --- things that are not ours ---------------------------------------------------------------------

STRANGERS = [
    "ckpt/notes.txt",
    "ckpt/COMMIT.json",
    "ckpt/latest/COMMIT.json",
    "ckpt/99-9/COMMIT.json",
    "ckpt/000000000099-000009/COMMIT.json.tmp",
    "ckpt/000000000099-000009/commit.json",
    "ckpt/000000000099-000009/sub/COMMIT.json",
    "ckpt/0000000000099-000009/COMMIT.json",
    "ckpt/ü ~#%&+@?.json",
    "COMMIT.json",
    "ckpt2/000000000099-000009/COMMIT.json",
]


def test_things_that_are_not_ours_are_neither_read_nor_deleted(store: Store) -> None:
    save(store, NEWER, make_state(20))
    for key in STRANGERS:
        store.put(key, b"mine")
    save(store, LATER, make_state(30))
    restored, found = restore(store)
    assert (restored.commit.id, restored.fallbacks) == (LATER, ())
    assert found == contents(make_state(30))
    assert prune(store, generation=2, keep_last=1) == [NEWER]
    assert list_commits(store) == [LATER]
    assert set(STRANGERS) <= set(store.list(""))
