from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from checkpoint_world import (
    NOW,
    Memory,
    chunk_of,
    contents,
    make_state,
    restore,
    save,
    write_parts,
)
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors import deserialize

from headway.checkpoint.layout import LATEST, CheckpointId
from headway.checkpoint.reader import list_commits, load_commit, read_rank_state, read_tensors
from headway.checkpoint.state import CHUNK, ITEM_SIZES, TensorSpec
from headway.checkpoint.stores import Store, open_store
from headway.checkpoint.writer import commit, write_part

FIRST = CheckpointId(generation=1, step=10)

shapes = st.lists(st.integers(0, 9), max_size=3).map(tuple)
layouts = st.dictionaries(
    st.text("abc.", min_size=1, max_size=3),
    st.tuples(st.sampled_from(sorted(ITEM_SIZES)), shapes),
    max_size=6,
)


@settings(max_examples=40)
@given(
    layout=layouts,
    world_size=st.integers(1, 9),
    chunk=st.sampled_from([16, 256, CHUNK]),
    seed=st.integers(0, 2**32),
)
def test_any_state_comes_back_whatever_world_wrote_it(
    layout: dict[str, tuple[str, tuple[int, ...]]], world_size: int, chunk: int, seed: int
) -> None:
    state = make_state(seed, [(name, dtype, shape) for name, (dtype, shape) in layout.items()])
    with tempfile.TemporaryDirectory() as folder, chunk_of(chunk):
        store = open_store(folder)
        save(store, FIRST, state, world_size)
        restored, found = restore(store)
    assert found == contents(state)
    assert {spec.name: spec for spec in restored.commit.tensors} == {
        name: spec for name, (spec, _) in state.items()
    }
    assert restored.fallbacks == ()


def test_state_outside_tensors_comes_back(store: Store) -> None:
    save(store, FIRST, make_state(1), world_size=2, metrics={"loss": 0.5, "bad": float("nan")})
    restored, _ = restore(store, rank=1)
    assert restored.rank_state == {"rng": [1, 2**70], "cursor": 10}
    assert restored.commit.objects == {"epoch": 3, "best": float("inf"), "betas": [0.9, 0.999]}
    assert restored.commit.metrics == {"loss": 0.5}
    assert restored.commit.created == NOW


def test_a_rank_that_did_not_exist_has_no_state_of_its_own(store: Store) -> None:
    record = save(store, FIRST, make_state(1), world_size=2)
    assert read_rank_state(store, record, 1) is not None
    assert read_rank_state(store, record, 2) is None


def test_parts_are_safetensors_files_that_hold_the_whole_state(store: Store, root: Path) -> None:
    """Whole tensors keep name, dtype and shape; pieces are called name@first-element."""
    state = make_state(2)
    with chunk_of(16):
        record = save(store, FIRST, state, world_size=3)
    whole: dict[str, bytes] = {}
    pieces: dict[str, dict[int, bytes]] = {}
    for part in record.parts:
        for name, entry in deserialize((root / part.key).read_bytes()):
            tensor, _, start = name.partition("@")
            spec = state[tensor][0]
            assert entry["dtype"] == spec.dtype
            if start:
                assert entry["shape"] == [len(entry["data"]) // spec.item_size]
                pieces.setdefault(tensor, {})[int(start) * spec.item_size] = bytes(entry["data"])
            else:
                assert tuple(entry["shape"]) == spec.shape
                whole[tensor] = bytes(entry["data"])
    assert whole
    assert pieces, "the test must see both kinds"
    joined = {name: b"".join(part for _, part in sorted(p.items())) for name, p in pieces.items()}
    assert whole | joined == contents(state)


def test_tensors_in_a_part_are_aligned_to_their_elements(store: Store) -> None:
    """Readers that map the file view the bytes as numbers in place."""
    record = save(store, FIRST, make_state(3), world_size=2)
    sizes = {spec.name: spec.item_size for spec in record.tensors}
    for part in record.parts:
        assert part.header_nbytes % 8 == 0
        for fragment in part.fragments:
            assert fragment.offset % sizes[fragment.name] == 0


def test_a_tensor_above_the_chunk_size_is_cut_for_checksums_and_comes_back(store: Store) -> None:
    state = make_state(4, [("big", "F32", (CHUNK // 4 * 2 + 3,)), ("small", "U8", (3,))])
    record = save(store, FIRST, state, world_size=1)
    assert len([f for f in record.parts[0].fragments if f.name == "big"]) == 3
    assert restore(store)[1] == contents(state)


def test_only_the_wanted_tensors_are_asked_for_and_read(store: Store) -> None:
    state = make_state(5)
    save(store, FIRST, state, world_size=3)
    _, found = restore(store, choose=lambda _: lambda spec: spec.name.startswith("model."))
    assert found == {n: data for n, data in contents(state).items() if n.startswith("model.")}


def test_what_the_caller_raises_for_an_unknown_tensor_is_not_a_fallback(store: Store) -> None:
    record = save(store, FIRST, make_state(6))

    def into(spec: TensorSpec) -> memoryview:
        raise KeyError(spec.name)

    with pytest.raises(KeyError, match="model"):
        read_tensors(store, record, into)


def test_memory_that_does_not_fit_is_refused(store: Store) -> None:
    record = save(store, FIRST, make_state(6))
    with pytest.raises(ValueError, match="writable bytes as one flat view"):
        read_tensors(store, record, lambda spec: memoryview(bytearray(spec.nbytes + 1)))


def test_a_view_that_does_not_fit_its_spec_is_refused_before_anything_is_sent(
    store: Store,
) -> None:
    spec = TensorSpec(name="w", dtype="F32", shape=(2,))
    with pytest.raises(ValueError, match="give 8 bytes as one flat view"):
        write_part(store, FIRST, 0, 1, {"w": (spec, memoryview(b"1234"))}, {})
    assert store.list("ckpt") == []


def test_a_commit_that_is_repeated_after_a_doubtful_answer_is_the_same(store: Store) -> None:
    receipts = write_parts(store, FIRST, make_state(7), 2)
    first = commit(store, FIRST, receipts, created=NOW)
    assert commit(store, FIRST, list(reversed(receipts)), created=NOW) == first
    assert load_commit(store, FIRST) == first


def test_commits_are_listed_newest_generation_first_and_the_hint_is_not_trusted(
    store: Store,
) -> None:
    older, zombie = CheckpointId(generation=1, step=10), CheckpointId(generation=1, step=99)
    newer = CheckpointId(generation=2, step=20)
    for checkpoint in (older, newer, zombie):
        save(store, checkpoint, make_state(checkpoint.step))
    assert store.get(LATEST).decode() == zombie.directory
    assert list_commits(store) == [newer, zombie, older]
    restored, found = restore(store)
    assert restored.commit.id == newer
    assert found == contents(make_state(20))


def test_skipped_checkpoints_are_not_tried(store: Store) -> None:
    older, newer = CheckpointId(generation=1, step=10), CheckpointId(generation=1, step=20)
    save(store, older, make_state(10))
    save(store, newer, make_state(20))
    restored, found = restore(store, skip={newer})
    assert (restored.commit.id, found) == (older, contents(make_state(10)))
    assert restored.fallbacks == ()


def test_memory_used_for_reading_one_request_is_bounded_and_requests_are_few(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand small tensors are read in a handful of requests."""
    state = make_state(8, [(f"t{index:04d}", "F32", (9,)) for index in range(1000)])
    record = save(store, FIRST, state, world_size=2)
    lengths: list[int] = []
    real = Store.get_range

    def counted(self: Store, key: str, start: int, length: int) -> memoryview:
        lengths.append(length)
        return real(self, key, start, length)

    monkeypatch.setattr(Store, "get_range", counted)
    memory = Memory()
    read_tensors(store, record, memory)
    assert memory.contents() == contents(state)
    assert len(lengths) == 2
    assert max(lengths) <= CHUNK
