from __future__ import annotations

import pytest
from checkpoint_world import contents, make_state, restore, save, write_parts
from hypothesis import given
from hypothesis import strategies as st

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits, scan
from headway.checkpoint.retention import (
    Best,
    CommitInfo,
    abandoned,
    delete_checkpoint,
    expired,
    prune,
)
from headway.checkpoint.stores import Store

ids = st.builds(CheckpointId, generation=st.integers(0, 4), step=st.integers(0, 50))
metrics = st.dictionaries(st.sampled_from(["loss", "accuracy"]), st.integers(-3, 3).map(float))
commits = st.lists(
    st.builds(CommitInfo, id=ids, metrics=metrics), max_size=12, unique_by=lambda info: info.id
)
bests = st.none() | st.builds(
    Best,
    metric=st.sampled_from(["loss", "accuracy", "unknown"]),
    mode=st.sampled_from(["min", "max"]),
    count=st.integers(1, 3),
)


def at(generation: int, step: int) -> CheckpointId:
    return CheckpointId(generation=generation, step=step)


@given(infos=commits, keep_last=st.integers(-1, 5), best=bests)
def test_the_newest_and_the_best_are_never_expired(
    infos: list[CommitInfo], keep_last: int, best: Best | None
) -> None:
    gone = set(expired(infos, keep_last, best))
    if infos:
        assert max(info.id for info in infos) not in gone
    rated = [info for info in infos if best and best.metric in info.metrics]
    if best and rated:
        values = [info.metrics[best.metric] for info in rated]
        winner = min(values) if best.mode == "min" else max(values)
        assert any(info.metrics[best.metric] == winner and info.id not in gone for info in rated)
    kept = len(infos) - len(gone)
    assert min(len(infos), max(1, keep_last)) <= kept
    assert kept <= max(1, keep_last) + (best.count if best else 0)


@given(incomplete=st.lists(ids), committed=st.lists(ids), generation=st.integers(0, 4))
def test_a_save_that_may_still_be_under_way_is_not_abandoned(
    incomplete: list[CheckpointId], committed: list[CheckpointId], generation: int
) -> None:
    for gone in abandoned(incomplete, committed, generation):
        assert gone.generation <= generation
        if gone.generation == generation:
            assert any(c.generation == generation and c.step > gone.step for c in committed)


def test_the_oldest_go_first_and_the_best_stay() -> None:
    infos = [
        CommitInfo(at(1, 10), {"loss": 0.5}),
        CommitInfo(at(1, 20), {"loss": 0.1}),
        CommitInfo(at(1, 30), {"loss": 0.1}),
        CommitInfo(at(2, 25), {"loss": 0.9}),
        CommitInfo(at(2, 35)),
    ]
    assert expired(infos, 2) == [at(1, 10), at(1, 20), at(1, 30)]
    assert expired(infos, 1, Best("loss")) == [at(1, 10), at(1, 20), at(2, 25)]
    assert expired(infos, 1, Best("loss", "max")) == [at(1, 10), at(1, 20), at(1, 30)]
    assert expired(infos, 1, Best("loss", "min", 2)) == [at(1, 10), at(2, 25)]


def test_abandoned_saves_are_those_that_nobody_will_finish() -> None:
    committed = [at(2, 30), at(1, 90)]
    incomplete = [at(1, 95), at(2, 20), at(2, 30), at(2, 40), at(3, 5)]
    assert abandoned(incomplete, committed, generation=2) == [at(1, 95), at(2, 20)]


def test_pruning_deletes_the_old_and_the_abandoned_and_nothing_else(store: Store) -> None:
    save(store, at(1, 10), make_state(10), metrics={"loss": 0.1})
    for step in (20, 30, 40):
        save(store, at(1, step), make_state(step), metrics={"loss": 0.5})
    write_parts(store, at(0, 99), make_state(99), 2)
    write_parts(store, at(1, 50), make_state(50), 2)
    gone = prune(store, generation=1, keep_last=2, best=Best("loss"))
    assert gone == [at(1, 20), at(0, 99)]
    assert list_commits(store) == [at(1, 40), at(1, 30), at(1, 10)]
    assert scan(store).incomplete == [at(1, 50)]
    assert restore(store)[1] == contents(make_state(40))


def test_unreadable_commits_are_neither_counted_nor_deleted(store: Store) -> None:
    """They may be of a newer version; and they must not push valid ones out."""
    save(store, at(1, 10), make_state(10))
    store.put(at(1, 20).commit_key, b"{}")
    save(store, at(1, 30), make_state(30))
    assert prune(store, generation=1, keep_last=2) == []


def test_deleting_twice_is_harmless(store: Store) -> None:
    save(store, at(1, 10), make_state(10))
    delete_checkpoint(store, at(1, 10))
    delete_checkpoint(store, at(1, 10))
    assert store.list("ckpt") == []


@pytest.mark.parametrize("keep_last", [0, -3])
def test_the_only_checkpoint_stays_whatever_is_asked(store: Store, keep_last: int) -> None:
    save(store, at(1, 10), make_state(10))
    assert prune(store, generation=9, keep_last=keep_last) == []
