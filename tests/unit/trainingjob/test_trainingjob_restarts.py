"""The restart budget: each restart counted once."""

import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_views import NOW, a_pod, a_report, at, stamp

from headway_api.failure import Decision, Failure
from headway_api.messages import ProgressReport
from headway_api.trainingjob import LastRestart, LeadRestarts, Restarts, TrainingJobStatus
from headway_operator.trainingjob.failure import Loss
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.restarts import (
    accounted,
    left_behind,
    left_behind_times,
    replace_at,
    taken_over,
)

LIMIT = 10


def taking(status: TrainingJobStatus, report: ProgressReport) -> TrainingJobStatus:
    restarts, _ = taken_over(status, report, 1, LIMIT)
    generation = max(status.generation or 0, report.generation)
    return status.model_copy(update={"restarts": restarts, "generation": generation})


@given(
    counted=st.lists(st.booleans(), max_size=8),
    picks=st.lists(st.integers(0, 8), max_size=20),
)
def test_reports_late_twice_or_out_of_order_count_each_restart_once(
    counted: list[bool], picks: list[int]
) -> None:
    """Whatever is delivered of a session, the newest report makes the counts right."""
    reports = [
        a_report(restartsTotal=n, restartsCounted=sum(counted[:n]), generation=1 + n)
        for n in range(len(counted) + 1)
    ]
    status = taking(TrainingJobStatus(), reports[0])
    for pick in picks:
        status = taking(status, reports[min(pick, len(counted))])
    status = taking(status, reports[-1])
    assert status.restarts is not None
    assert (status.restarts.total, status.restarts.counted) == (len(counted), sum(counted))


@given(seed=st.integers(0, 2**32))
def test_sessions_add_up_and_old_ones_never_come_back(seed: int) -> None:
    """Each new lead starts its own count, in a generation above all before."""
    rng = random.Random(seed)
    status, generation, total, old = TrainingJobStatus(), 0, 0, list[ProgressReport]()
    for session in range(rng.randint(1, 4)):
        in_place = rng.randint(0, 3)
        for number in range(in_place + 1):
            generation += 1
            report = a_report(
                session=f"s{session}",
                generation=generation,
                restartsTotal=number,
                restartsCounted=number,
            )
            status = taking(status, report)
            if old:
                status = taking(status, rng.choice(old))
        total += in_place
        old.append(report)
    assert status.restarts is not None
    assert (status.restarts.total, status.restarts.counted) == (total, min(total, LIMIT))


def test_a_report_of_another_attempt_is_not_counted() -> None:
    restarts, over = taken_over(TrainingJobStatus(), a_report(restartsTotal=3), 2, LIMIT)
    assert (restarts.total, over) == (0, False)


@pytest.mark.parametrize(
    ("counted", "more", "expected", "over"),
    [(0, 10, 10, False), (0, 11, 10, True), (10, 0, 10, False), (10, 1, 10, True)],
)
def test_the_budget_is_never_counted_beyond(
    counted: int, more: int, expected: int, over: bool
) -> None:
    status = TrainingJobStatus(restarts=Restarts(total=counted, counted=counted))
    report = a_report(restartsTotal=more, restartsCounted=more)
    restarts, beyond = taken_over(status, report, 1, LIMIT)
    assert (restarts.counted, beyond) == (expected, over)


def a_loss(uid: str = "uid-1") -> Loss:
    return Loss(1, Failure("Error", 1), "Worker 1 ended.", uid, 3, NOW)


@pytest.mark.parametrize(
    ("decision", "total", "counted"),
    [
        (Decision("Restart", "mine"), 1, 1),
        (Decision("RestartWithoutCounting"), 1, 0),
        (None, 0, 0),
    ],
)
def test_several_losses_are_one_restart(
    decision: Decision | None, total: int, counted: int
) -> None:
    group = Group.of((a_pod(0, "Failed"), a_pod(1, "Failed")), attempt=1, replicas=2, handled=())
    found = (a_loss("uid-0"), a_loss("uid-1"))
    after = accounted(Restarts(), group, found, found[1], NOW, decision)
    assert (after.total, after.counted) == (total, counted)
    assert after.handled_pods == ["uid-0", "uid-1"]
    if decision is not None:
        assert after.last == LastRestart(
            time=stamp(),
            reason="Error",
            worker=1,
            rank=3,
            exit_code=1,
            message="Worker 1 ended.",
            rule=decision.rule,
        )


def test_who_is_done_already_takes_part_again() -> None:
    pods = (a_pod(0, "Succeeded"), a_pod(1, "Failed"))
    group = Group.of(pods, attempt=1, replicas=2, handled=())
    after = accounted(Restarts(), group, (a_loss(),), a_loss(), NOW, Decision("Restart"))
    assert after.handled_pods == ["uid-0", "uid-1"]


def test_a_pod_that_was_deleted_has_no_uid_to_remember() -> None:
    group = Group.of((a_pod(0),), attempt=1, replicas=2, handled=())
    after = accounted(Restarts(), group, (a_loss(""),), a_loss(""), NOW, Decision("Restart"))
    assert after.handled_pods is None
    assert after.total == 1


@pytest.mark.parametrize(
    ("total", "lived", "wait"),
    [
        (1, 5, None),
        (2, 5, 1),
        (3, 5, 2),
        (4, 5, 4),
        (7, 5, 32),
        (8, 5, 60),
        (10_000, 5, 60),
        (8, 60, None),
    ],
)
def test_crash_loops_slow_down_and_long_lives_do_not_wait(
    total: int, lived: float, wait: float | None
) -> None:
    restarts = Restarts(total=total, last=LastRestart(time=stamp(), reason="Error"))
    due = replace_at(a_pod(0, "Failed", lived=lived), restarts)
    assert due == (None if wait is None else at(wait))


@pytest.mark.parametrize(("total", "wait"), [(1, None), (3, 2), (5, 5), (10_000, 5)])
def test_a_series_of_preemptions_is_no_crash_loop(total: int, wait: float | None) -> None:
    restarts = Restarts(total=total, last=LastRestart(time=stamp(), reason="Preempted"))
    due = replace_at(a_pod(0, "Failed", lived=5), restarts)
    assert due == (None if wait is None else at(wait))


def test_a_pod_on_a_lost_node_is_replaced_at_once() -> None:
    restarts = Restarts(total=9, last=LastRestart(time=stamp(), reason="NodeLost"))
    assert replace_at(a_pod(0), restarts) is None


@pytest.mark.parametrize(
    ("lead_began", "state", "later", "behind"),
    [
        (-10, "Training", 60, set()),
        (10, "Training", 15, {"uid-1"}),
        (None, "Training", 0, {"uid-1"}),
        # Sent home by the lead before, and gone only now: this one goes on waiting.
        (-10, "Waiting", 9, set()),
        (-10, "Waiting", 10, {"uid-1"}),
    ],
)
def test_workers_that_their_lead_did_not_send_home_have_to_come_back(
    lead_began: float | None, state: str, later: float, behind: set[str]
) -> None:
    """Whenever its pod was made: the others may end while the new lead is still pulled."""
    began = None if lead_began is None else at(lead_began)
    lead = replace(a_pod(0), created=at(-60), started=began)
    group = Group.of((lead, a_pod(1, "Succeeded")), attempt=1, replicas=2, handled=())
    report = a_report(state=state)
    assert left_behind(group, report, at(later)) == behind
    assert left_behind_times(group, report) == ([at(10)] if state == "Waiting" else [])


def test_the_takeover_is_remembered_by_session() -> None:
    restarts, _ = taken_over(TrainingJobStatus(), a_report(restartsTotal=2), 1, LIMIT)
    assert restarts.lead == LeadRestarts(session="one", total=2, counted=0)
