"""Which checkpoint is where: sealed by all, sent one at a time, the newest next."""

from __future__ import annotations

from headway.agent.pipeline import Pipeline, Upload
from headway.checkpoint.layout import CheckpointId

A, B, C, D = (CheckpointId(1, step) for step in (10, 20, 30, 40))


def sealed_by_all(pipeline: Pipeline, checkpoint: CheckpointId) -> list[Upload]:
    moves = [pipeline.sealed(checkpoint, rank) for rank in sorted(pipeline.ranks)]
    assert not any(moves[:-1])
    return moves[-1]


def pipeline(*, ranks: int = 2) -> Pipeline:
    return Pipeline(frozenset(range(ranks)))


def test_it_is_sent_once_every_rank_has_sealed_it() -> None:
    one = pipeline()
    one.agreed(A)
    assert one.sealed(A, 1) == []
    assert one.sealed(A, 1) == []  # said twice
    assert one.sealed(A, 0) == [Upload(A)]
    assert one.uploading == A


def test_while_one_is_sent_newer_ones_replace_each_other_and_the_newest_is_next() -> None:
    one = pipeline()
    assert sealed_by_all(one, A) == [Upload(A)]
    assert sealed_by_all(one, B) == []
    assert sealed_by_all(one, C) == []
    assert one.superseded == 1
    assert one.stored(A) == [Upload(C)]
    assert one.stored(C) == []
    assert one.unsent is None


def test_nothing_is_sent_while_ranks_are_saving() -> None:
    """They may be writing to the very slot that would be read."""
    one = pipeline()
    sealed_by_all(one, A)
    sealed_by_all(one, B)
    one.agreed(C)
    assert one.stored(A) == []
    assert sealed_by_all(one, C) == [Upload(C)]


def test_a_save_that_fails_makes_room_for_what_was_waiting() -> None:
    one = pipeline()
    sealed_by_all(one, A)
    sealed_by_all(one, B)
    one.agreed(C)
    one.stored(A)
    assert one.failed(C) == []  # B is older than what was given up: it is settled with it
    assert one.copying is None


def test_the_save_before_a_pod_leaves_does_not_wait_for_an_upload() -> None:
    one = pipeline()
    sealed_by_all(one, A)
    one.agreed(B, urgent=True)
    assert sealed_by_all(one, B) == [Upload(B)]
    assert one.uploading == B


def test_a_save_agreed_for_a_step_after_the_last_does_not_hold_the_last_checkpoint_up() -> None:
    """Found by a test with real processes: ranks at the end never reach the agreed step."""
    one = pipeline()
    sealed_by_all(one, A)
    one.stored(A)
    one.sealed(B, 0)
    one.agreed(C)  # promised by both, before either had come to its end
    assert one.sealed(B, 1) == []
    assert one.ends_at(20) == [Upload(B)]
    one.agreed(D)
    assert one.copying is None


def test_a_new_generation_sends_again_what_it_started_from_unless_that_is_committed() -> None:
    one = pipeline()
    sealed_by_all(one, A)
    assert one.began(A) == [Upload(A)]
    one.stored(A)
    assert one.began(A) == []
    assert one.began(None) == []
    assert one.uploading is None


def test_a_new_generation_gives_up_what_not_every_node_still_has() -> None:
    one = pipeline()
    sealed_by_all(one, B)
    one.agreed(C)
    one.sealed(C, 0)
    assert one.began(A) == [Upload(A)]
    assert one.copying is None
    two = CheckpointId(2, 11)
    assert sealed_by_all(one, two) == []
    assert one.stored(A) == [Upload(two)]


def test_a_new_generation_tries_once_more_what_storage_has_refused() -> None:
    """Or else a run whose last checkpoint was refused would end without it."""
    one = pipeline()
    sealed_by_all(one, A)
    one.failed(A)
    assert one.unsent is None  # it is not tried again and again
    assert one.began(A) == [Upload(A)]
    one.stored(A)
    assert one.began(A) == []


def test_a_rank_at_the_end_gets_one_more_try_for_a_last_checkpoint_that_was_refused() -> None:
    """The refusal may have come before the rank, which has resumed there, was listening."""
    one = pipeline()
    assert one.began(A) == [Upload(A)]
    one.failed(A)
    assert one.ends_at(10) == [Upload(A)]
    assert one.ends_at(10) == []  # the other rank: it is on its way
    one.stored(A)
    assert one.ends_at(10) == []
