"""From whose memory a generation starts."""

from __future__ import annotations

from collections.abc import Callable

from headway.agent.memory import Copy
from headway.agent.rankstates import RankStates
from headway.agent.sources import Source, choose
from headway.checkpoint.layout import CheckpointId

A, B, C = CheckpointId(1, 10), CheckpointId(1, 20), CheckpointId(2, 15)
Kept = Callable[[CheckpointId, int], bool]


def all_kept(checkpoint: CheckpointId, index: int) -> bool:
    return True


def none_kept(checkpoint: CheckpointId, index: int) -> bool:
    return False


def copies(*ids: CheckpointId, replicated: bool = True) -> list[Copy]:
    return [Copy(each, replicated) for each in ids]


def test_the_newest_that_everybody_holds() -> None:
    held = {0: copies(B, A), 1: copies(A)}
    assert choose(held, none_kept) == Source(A, {})
    assert choose({0: copies(B, A), 1: copies(B)}, none_kept) == Source(B, {})


def test_a_newer_generation_goes_before_a_higher_step() -> None:
    assert choose({0: copies(B, C)}, none_kept) == Source(C, {})


def test_a_new_pod_gets_it_from_one_that_has_all_of_it() -> None:
    held = {0: copies(B), 1: [], 2: copies(B), 3: []}
    assert choose(held, all_kept) == Source(B, {1: 0, 3: 2})


def test_without_its_ranks_states_a_new_pod_can_not_go_on() -> None:
    assert choose({0: copies(B), 1: []}, none_kept) is None


def test_a_shard_serves_nobody_else() -> None:
    assert choose({0: copies(B, replicated=False), 1: []}, all_kept) is None


def test_storage_when_it_has_something_newer_or_memory_is_empty() -> None:
    assert choose({0: copies(B), 1: copies(B)}, all_kept, newer_than=C) is None
    assert choose({0: copies(B), 1: copies(B)}, all_kept, newer_than=B) == Source(B, {})
    assert choose({0: [], 1: []}, all_kept) is None


def test_rank_states_are_kept_for_the_latest_checkpoints_and_travel() -> None:
    states = RankStates(2)
    for checkpoint in (A, B, C, CheckpointId(2, 30)):
        for rank in range(4):
            states.add(checkpoint, rank, {"rng": [checkpoint.step, rank]})
    assert not states.knows(A, 0)
    assert states.knows(C, 1)
    other = RankStates(2)
    other.add_all(states.of(C, 1))
    assert other.knows(C, 1)
    assert not other.knows(C, 0)
    assert other.of(C, 1)["states"]["3"] == {"rng": [15, 3]}
