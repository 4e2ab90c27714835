"""The lead's decisions: when generations begin and end, and what the end of a worker means."""

from __future__ import annotations

import pytest

from headway.agent.group import Action, Begin, Finish, Group, Leave, State, StopAll
from headway_api.contract import ExitCode
from headway_api.messages import RestartReport
from headway_api.trainingjob import FailurePolicy


def group(replicas: int = 2, maximum: int = 3, counted_before: int = 0) -> Group:
    policy = FailurePolicy(max_restarts=maximum)
    return Group(replicas, 1, policy, counted_before=counted_before)


def joined(one: Group) -> list[Action]:
    actions: list[Action] = []
    for index in range(one.replicas):
        actions += one.joined(index, f"uid-{index}", f"10.0.0.{index}")
    return actions


def running(one: Group, generation: int = 1, now: float = 0.0) -> Group:
    if not one.members:
        joined(one)
    one.began(generation, now)
    return one


def ended(rank: int, code: int = 1, reason: str = "Error") -> RestartReport:
    return RestartReport(
        time="2026-01-01T00:00:00Z",
        reason=reason,
        worker=rank,
        rank=rank,
        exit_code=code,
        message="m",
    )


def stopped(one: Group, generation: int) -> list[Action]:
    actions: list[Action] = []
    for index in list(one.members):
        actions += one.node_stopped(index, generation)
    return actions


def test_a_generation_begins_when_every_pod_is_there_and_not_before() -> None:
    one = group(3)
    assert one.joined(0, "a", "1") == []
    assert one.joined(2, "c", "3") == []
    assert one.missing == [1]
    assert one.joined(1, "b", "2") == [Begin()]


def test_a_failed_worker_stops_all_and_the_next_generation_waits_for_every_node() -> None:
    one = running(group())
    assert one.exited(ended(1), 1, 100.0) == [StopAll(1)]
    assert (one.total, one.counted) == (1, 1)
    assert one.node_stopped(0, 1) == []
    assert one.node_stopped(1, 1) == [Begin()]


def test_what_ended_workers_of_an_old_generation_say_is_ignored() -> None:
    one = running(group(), generation=4)
    assert one.exited(ended(0), 3, 0.0) == []
    assert one.node_stopped(0, 3) == []
    assert one.total == 0


def test_two_ranks_that_fail_together_are_one_restart() -> None:
    one = running(group())
    one.exited(ended(0), 1, 0.0)
    assert one.exited(ended(1), 1, 0.0) == []
    assert one.total == 1


def test_the_group_is_done_when_every_rank_is() -> None:
    one = running(group())
    assert one.exited(ended(1, ExitCode.DONE), 1, 0.0) == []
    (finish,) = one.exited(ended(0, ExitCode.DONE), 1, 0.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.DONE


def test_ranks_that_were_done_take_part_again_after_a_restart() -> None:
    one = running(group())
    one.exited(ended(1, ExitCode.DONE), 1, 0.0)
    one.exited(ended(0), 1, 0.0)
    stopped(one, 1)
    one.began(2, 1.0)
    assert one.exited(ended(0, ExitCode.DONE), 2, 1.0) == []


def test_the_budget_holds_over_leads() -> None:
    one = running(group(maximum=2, counted_before=1))
    assert one.exited(ended(0), 1, 100.0) == [StopAll(1)]
    stopped(one, 1)
    one.began(2, 100.0)
    (finish,) = one.exited(ended(0), 2, 200.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.BUDGET
    assert "maxRestarts" in finish.message


def test_a_program_that_cannot_work_is_not_started_again() -> None:
    (finish,) = running(group()).exited(ended(1, ExitCode.CONFIG), 1, 0.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.CONFIG
    assert finish.culprit is not None
    assert finish.culprit.worker == 1


@pytest.mark.parametrize("code", [ExitCode.PREEMPTED, ExitCode.BUDGET, ExitCode.PEER_LOST])
def test_the_exit_codes_of_a_script_mean_nothing_to_us(code: int) -> None:
    """A script that exits with 143 for ever must use up the budget like any other."""
    one = running(group())
    assert one.exited(ended(1, code), 1, 100.0) == [StopAll(1)]
    assert (one.total, one.counted) == (1, 1)


def test_crash_loops_slow_down_and_a_step_forgives() -> None:
    one, pauses = running(group(maximum=100)), []
    for generation in range(1, 9):
        one.exited(ended(0), generation, 1.0)
        (begin,) = stopped(one, generation)
        assert isinstance(begin, Begin)
        pauses.append(begin.pause)
        one.began(generation + 1, 0.0)
    assert pauses == [0, 1, 2, 4, 8, 16, 30, 30]
    one.stepped()
    one.exited(ended(0), 9, 1.0)
    assert stopped(one, 9) == [Begin(0.0)]


def test_a_lost_pod_ends_the_generation_and_its_successor_starts_the_next() -> None:
    one = running(group())
    assert one.lost(1) == [StopAll(1)]
    assert one.node_stopped(0, 1) == []
    assert one.missing == [1]
    assert one.joined(1, "uid-new", "10.0.0.9") == [Begin()]
    assert one.total == 0  # the operator counts it: it has made the new pod


def test_a_pod_that_only_lost_its_connection_is_a_restart_of_ours() -> None:
    one = running(group())
    one.lost(1)
    one.node_stopped(0, 1)
    assert one.joined(1, "uid-1", "10.0.0.1") == [Begin()]
    assert (one.total, one.counted) == (1, 0)


def test_a_pod_that_is_taken_away_saves_with_all_and_leaves() -> None:
    one = running(group())
    assert one.going(1) == []
    assert one.exited(ended(0, ExitCode.PREEMPTED), 1, 0.0) == []
    assert one.exited(ended(1, ExitCode.PREEMPTED), 1, 0.0) == [StopAll(1)]
    one.node_stopped(0, 1)
    assert one.node_stopped(1, 1) == [Leave(frozenset({1}))]
    assert one.total == 0


def test_a_worker_that_fails_while_the_group_is_taken_down_proves_nothing() -> None:
    one = running(group())
    one.going(0)
    assert one.exited(ended(1), 1, 0.0) == [StopAll(1)]
    assert one.counted == 0


def test_the_next_generation_is_higher_than_any_that_a_member_has_been_in() -> None:
    """The operator may have forgotten the lead before us; who worked for it has not."""
    one = group()
    assert one.highest == 0
    one.heard(6)
    one.heard(2)
    assert one.highest == 6
    running(one, generation=7)
    assert one.highest == 7


def test_an_index_beyond_the_group_is_not_let_in() -> None:
    one = group()
    assert one.joined(7, "x", "y") == []
    assert one.missing == [0, 1]


def test_nothing_begins_after_the_end() -> None:
    one = running(group(1))
    one.exited(ended(0, ExitCode.DONE), 1, 0.0)
    assert one.state is State.ENDED
    assert one.lost(0) == []
    assert one.joined(0, "again", "z") == []
