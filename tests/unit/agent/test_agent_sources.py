"""From whose memory a generation starts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from headway.agent.memory import Copy
from headway.agent.placement import place
from headway.agent.rankstates import RankStates
from headway.agent.sources import Knows, Source, choose
from headway.checkpoint.layout import CheckpointId

A, B, C = CheckpointId(1, 10), CheckpointId(1, 20), CheckpointId(2, 15)


def all_known(checkpoint: CheckpointId, ranks: Sequence[int]) -> bool:
    return True


def none_known(checkpoint: CheckpointId, ranks: Sequence[int]) -> bool:
    return not ranks


def copy(one: CheckpointId, *ranks: int, of: int = 4, replicated: bool = True) -> Copy:
    return Copy(one, replicated, ranks, of)


def held(*pods: list[CheckpointId], replicated: bool = True) -> dict[int, list[Copy]]:
    """What pods with one rank each hold."""
    size = len(pods)
    return {
        index: [copy(each, index, of=size, replicated=replicated) for each in ids]
        for index, ids in enumerate(pods)
    }


def chosen(of: dict[int, list[Copy]], knows: Knows, newer: CheckpointId | None = None) -> Any:
    return choose(of, place(of, 1), knows, newer)


def test_the_newest_that_everybody_holds() -> None:
    assert chosen(held([B, A], [A]), none_known) == Source(A, {})
    assert chosen(held([B, A], [B]), none_known) == Source(B, {})


def test_a_newer_generation_goes_before_a_higher_step() -> None:
    assert chosen(held([B, C]), none_known) == Source(C, {})


def test_a_new_pod_gets_it_from_one_that_has_all_of_it() -> None:
    found = chosen(held([B], [], [B], []), all_known)
    assert found == Source(B, {1: 0, 3: 2}, told=frozenset({1, 3}))


def test_without_its_ranks_states_a_new_pod_can_not_go_on() -> None:
    assert chosen(held([B], []), none_known) is None


def test_a_shard_serves_nobody_else() -> None:
    assert chosen(held([B], [], replicated=False), all_known) is None


def test_storage_when_it_has_something_newer_or_memory_is_empty() -> None:
    assert chosen(held([B], [B]), all_known, C) is None
    assert chosen(held([B], [B]), all_known, B) == Source(B, {})
    assert chosen(held([], []), all_known) is None


def test_a_group_that_has_grown_takes_its_new_ranks_in() -> None:
    of = {0: [copy(B, 0, 1, of=2)], 1: []}
    found = choose(of, place(of, 2), none_known)
    assert found == Source(B, {1: 0}, told=frozenset({1}), moved=True)


def test_a_group_that_has_shrunk_gives_ranks_the_states_that_were_theirs() -> None:
    of = {0: [copy(B, 0, of=3)], 2: [copy(B, 2, of=3)]}
    assert choose(of, place(of, 1), all_known) == Source(B, {}, frozenset({2}), moved=True)
    assert choose(of, place(of, 1), none_known) is None


def test_shards_of_another_size_are_put_together_by_storage_only() -> None:
    of = {index: [copy(B, index, of=3, replicated=False)] for index in (0, 1)}
    assert choose(of, place(of, 1), all_known) is None


def test_rank_states_are_kept_for_the_latest_checkpoints_and_travel() -> None:
    states = RankStates()
    for checkpoint in (A, B, C, CheckpointId(2, 30)):
        for rank in range(4):
            states.add(checkpoint, rank, {"rng": [checkpoint.step, rank]})
    assert not states.knows(A, [0, 1])
    assert states.knows(C, [2, 3])
    other = RankStates()
    other.add_all(states.of(C, [2, 3]))
    assert other.knows(C, [2, 3])
    assert not other.knows(C, [0, 1])
    assert other.of(C, [2, 3])["states"]["3"] == {"rng": [15, 3]}
