"""The lead's decisions: when generations begin and end, and what the end of a worker means."""

from __future__ import annotations

import pytest

from headway.agent.group import Action, Begin, Drain, Finish, Group, Leave, State, StopAll, Wait
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


def elastic(replicas: int = 3, smallest: int = 1) -> Group:
    return Group(replicas, 1, FailurePolicy(max_restarts=3), smallest=smallest)


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


def test_who_is_killed_from_outside_is_no_crash_loop() -> None:
    """A script need not report steps, and kills need not leave it ten seconds."""
    one = running(group(maximum=100))
    for generation in range(1, 9):
        one.exited(ended(0, code=137, reason="Signal"), generation, 1.0)
        assert stopped(one, generation) == [Begin(0.0)]
        one.began(generation + 1, 0.0)
    for generation, pause in enumerate((0, 1, 2), start=9):
        one.exited(ended(0, code=137, reason="OOMKilled"), generation, 1.0)
        assert stopped(one, generation) == [Begin(pause)]
        one.began(generation + 1, 0.0)


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


# --- groups that change their size ---------------------------------------------------------------


def test_an_elastic_group_waits_for_a_lost_pod_and_then_goes_on_without_it() -> None:
    one = running(elastic())
    assert one.lost(2) == [StopAll(1)]
    one.node_stopped(0, 1)
    (wait,) = one.node_stopped(1, 1)
    assert isinstance(wait, Wait)
    assert one.waited(wait.number) == [Begin()]
    assert one.may_begin
    running(one, 2)
    assert one.placement.pods == (0, 1)
    assert one.absent == []


def test_its_successor_is_waited_for_no_longer_than_it_takes() -> None:
    one = running(elastic())
    one.lost(2)
    one.node_stopped(0, 1)
    (wait,) = one.node_stopped(1, 1)
    assert one.joined(2, "new", "10.0.0.9") == [Begin()]
    running(one, 2)
    assert one.placement.pods == (0, 1, 2)
    assert isinstance(wait, Wait)
    assert one.waited(wait.number) == []  # it was for a generation that has begun since


def test_fewer_than_the_smallest_size_wait_for_ever() -> None:
    one = running(elastic(3, smallest=2))
    one.lost(1)
    one.lost(2)
    assert one.node_stopped(0, 1) == []
    one.joined(1, "new", "10.0.0.9")
    assert not one.may_begin


def test_the_leads_own_pod_is_always_part_of_it() -> None:
    one = elastic(2)
    assert one.joined(1, "b", "2") == []


def test_a_pod_that_comes_is_taken_in_after_a_step_of_all() -> None:
    one = running(elastic())
    one.lost(2)
    one.node_stopped(0, 1)
    (wait,) = one.node_stopped(1, 1)
    assert isinstance(wait, Wait)
    one.waited(wait.number)
    running(one, 2)
    assert one.joined(2, "new", "10.0.0.9") == [Drain(2)]
    assert one.exited(ended(0, ExitCode.PREEMPTED), 2, 1.0) == []
    assert one.exited(ended(1, ExitCode.PREEMPTED), 2, 1.0) == [StopAll(2)]
    assert stopped(one, 2)[-1:] == [Begin()]
    running(one, 3)
    assert one.placement.world_size == 3
    assert (one.total, one.counted) == (0, 0)  # nothing has failed


def test_another_number_of_pods_is_taken_at_once() -> None:
    one = running(elastic())
    assert one.resized(2) == [Drain(1)]
    assert one.resized(2) == []  # it drains already
    one.exited(ended(0, ExitCode.PREEMPTED), 1, 1.0)
    one.exited(ended(1, ExitCode.PREEMPTED), 1, 1.0)
    one.exited(ended(2, ExitCode.PREEMPTED), 1, 1.0)
    assert stopped(one, 1)[-1:] == [Begin()]  # though the third pod is still there
    running(one, 2)
    assert one.placement.pods == (0, 1)
    assert one.lost(2) == []  # and that it goes is of no interest
    assert one.state is State.RUNNING


def test_a_pod_that_leaves_an_elastic_group_is_not_waited_for_once_it_is_not_asked_for() -> None:
    one = running(elastic())
    one.going(2)
    one.resized(2)
    for rank in range(3):
        one.exited(ended(rank, ExitCode.PREEMPTED), 1, 1.0)
    actions = stopped(one, 1)
    assert Leave(frozenset({2})) in actions
    assert actions[-1] == Begin()


def test_who_finishes_on_the_way_to_another_size_is_done() -> None:
    one = running(elastic(2))
    one.drained()
    one.exited(ended(0, ExitCode.DONE), 1, 1.0)
    (finish,) = one.exited(ended(1, ExitCode.DONE), 1, 1.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.DONE


def test_a_group_of_one_size_hears_of_no_other() -> None:
    one = running(group(2))
    assert one.resized(3) == []
    assert one.joined(2, "c", "3") == []
    assert one.replicas == 2


def test_a_group_has_paused_when_every_rank_has() -> None:
    one = running(group())
    one.pausing = 30
    assert one.exited(ended(0, ExitCode.PAUSED), 1, 5.0) == []
    (finish,) = one.exited(ended(1, ExitCode.PAUSED), 1, 5.0)
    assert isinstance(finish, Finish)
    assert (finish.code, finish.reason) == (ExitCode.PAUSED, "Paused")
    assert "step 30 is saved" in finish.message
    assert one.state is State.ENDED
    assert (one.total, one.counted) == (0, 0)


def test_a_group_whose_ranks_come_to_the_end_instead_is_done() -> None:
    one = running(group())
    one.pausing = 30
    one.exited(ended(0, ExitCode.DONE), 1, 5.0)
    (finish,) = one.exited(ended(1, ExitCode.DONE), 1, 5.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.DONE


def test_pods_that_are_being_taken_away_may_pause_all_the_same() -> None:
    one = running(group())
    one.pausing = 30
    one.going(1)
    one.exited(ended(1, ExitCode.PAUSED), 1, 5.0)
    (finish,) = one.exited(ended(0, ExitCode.PAUSED), 1, 5.0)
    assert isinstance(finish, Finish)
    assert finish.code == ExitCode.PAUSED


def test_a_rank_that_is_killed_while_others_have_paused_is_a_failure_like_any() -> None:
    one = running(group())
    one.pausing = 30
    one.exited(ended(0, ExitCode.PAUSED), 1, 5.0)
    assert one.exited(ended(1, 137, "Signal"), 1, 5.0) == [StopAll(1)]
    assert one.counted == 1
    stopped(one, 1)
    one.began(2, 6.0)
    assert one.pausing is None
    assert one.exited(ended(0, ExitCode.PAUSED), 2, 7.0) == [StopAll(2)], "a code of the script's"


def test_a_scripts_own_exit_code_of_that_number_is_no_pause() -> None:
    one = running(group())
    assert one.exited(ended(0, ExitCode.PAUSED), 1, 5.0) == [StopAll(1)]
