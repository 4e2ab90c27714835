"""Why a pod was lost, and who of several is to blame."""

from dataclasses import replace
from typing import Any

import pytest
from job_views import NOW, a_job, a_pod, a_view, at

from headway_api.contract import ExitCode
from headway_api.messages import RestartReport, TerminationReport
from headway_operator.trainingjob.failure import Loss, culprit, losses
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.view import Pod


def found(*pods: Pod, expected: int = 0, **view: Any) -> tuple[Loss, ...]:
    group = Group.of(pods, attempt=1, replicas=2, handled=())
    return losses(group, a_view(a_job(), *pods, **view), NOW, expected=expected)


def words(code: int, blamed: str | None = None) -> TerminationReport:
    told = RestartReport(time="2026-01-01T00:00:00Z", reason=blamed or "", rank=3, exit_code=9)
    return TerminationReport(reason="Error", exit_code=code, culprit=told if blamed else None)


@pytest.mark.parametrize(
    ("fields", "reason", "code"),
    [
        ({}, "Error", 1),
        ({"exit_code": 137, "terminated_reason": "OOMKilled"}, "OOMKilled", 137),
        ({"exit_code": 137, "terminated_reason": "Error"}, "Error", 137),
        ({"status_reason": "Evicted", "exit_code": None}, "Evicted", None),
        ({"status_reason": "UnexpectedAdmissionError", "exit_code": None}, "Evicted", None),
        ({"status_reason": "NodeShutdown"}, "NodeShutdown", 1),
        ({"disruption": "PreemptionByScheduler"}, "Preempted", 1),
        ({"disruption": "EvictionByEvictionAPI"}, "Evicted", 1),
        ({"disruption": "DeletionByTaintManager"}, "NodeLost", 1),
        ({"disruption": "SomethingNew"}, "Evicted", 1),
        ({"terminated_reason": "ContainerStatusUnknown", "exit_code": 137}, "NodeLost", 137),
        ({"deleting": NOW}, "PodDeleted", 1),
        ({"exit_code": ExitCode.PREEMPTED}, "Preempted", 143),
        ({"exit_code": ExitCode.PEER_LOST}, "PeerLost", 81),
        ({"exit_code": ExitCode.FENCED}, "PeerLost", 79),
        ({"exit_code": ExitCode.CONFIG}, "ConfigurationError", 78),
        # What never heals wins over what happened around it.
        ({"exit_code": ExitCode.CONFIG, "deleting": NOW}, "ConfigurationError", 78),
        ({"exit_code": ExitCode.BUDGET, "disruption": "x"}, "RestartBudgetExhausted", 80),
        # The agent knows better than the kubelet who was to blame.
        ({"report": words(1, "OOMKilled")}, "OOMKilled", 9),
        ({"report": words(1)}, "Error", 1),
        ({"report": words(7), "exit_code": None}, "Error", 7),
    ],
)
def test_an_ended_pod_is_classified(fields: dict[str, Any], reason: str, code: int | None) -> None:
    (loss,) = found(replace(a_pod(0, "Failed"), **fields))
    assert (loss.failure.reason, loss.failure.exit_code) == (reason, code)


def test_the_agents_message_reaches_the_user() -> None:
    (loss,) = found(replace(a_pod(1, "Failed"), message="ValueError: nan"))
    assert loss.message == "Worker 1 ended with exit code 1 (Error). ValueError: nan"


@pytest.mark.parametrize("phase", ["Pending", "Running", "Succeeded", "Unknown"])
def test_a_pod_that_has_not_failed_is_no_loss(phase: str) -> None:
    assert found(a_pod(0, phase)) == ()


def test_a_pod_on_a_silent_node_is_lost() -> None:
    (loss,) = found(a_pod(0), lost_nodes=frozenset({"node-0"}))
    assert loss.failure.reason == "NodeLost"


@pytest.mark.parametrize(
    ("since", "disruption", "reason"),
    [
        (29, "", None),
        (30, "", "PodDeleted"),
        (30, "PreemptionByScheduler", "Preempted"),
    ],
)
def test_a_pod_that_is_being_deleted_may_save_until_half_a_minute_after_its_time(
    since: float, disruption: str, reason: str | None
) -> None:
    pod = replace(a_pod(0), deleting=at(-since), disruption=disruption)
    assert [loss.failure.reason for loss in found(pod)] == ([reason] if reason else [])


@pytest.mark.parametrize(("expected", "lost"), [(0, []), (1, []), (2, [1])])
def test_a_missing_pod_was_deleted_if_it_had_been_there(expected: int, lost: list[int]) -> None:
    assert [loss.index for loss in found(a_pod(0), expected=expected)] == lost


def test_a_handled_pod_is_no_loss_again() -> None:
    pod = a_pod(0, "Failed")
    group = Group.of((pod,), attempt=1, replicas=2, handled={pod.uid})
    assert losses(group, a_view(a_job(), pod), NOW, expected=0) == ()


@pytest.mark.parametrize(
    ("pods", "index"),
    [
        # The first by time of end …
        ([{"finished": at(-5)}, {"finished": at(-9)}], 1),
        # … but one that failed itself before one that only lost its peers …
        ([{"finished": at(-9), "exit_code": ExitCode.PEER_LOST}, {"finished": at(-5)}], 1),
        ([{"finished": at(-9), "exit_code": ExitCode.FENCED}, {"finished": at(-5)}], 1),
        # … or was taken away, …
        ([{"finished": at(-9), "disruption": "x"}, {"finished": at(-5)}], 1),
        # … one that was taken away before one that lost its peers …
        ([{"finished": at(-9), "exit_code": ExitCode.PEER_LOST}, {"disruption": "x"}], 1),
        # … and what never heals before all.
        ([{"finished": at(-9)}, {"finished": at(-5), "exit_code": ExitCode.CONFIG}], 1),
        # An unknown time comes last; equal ones go by index.
        ([{"finished": None}, {"finished": NOW}], 1),
        ([{"finished": NOW}, {"finished": NOW}], 0),
    ],
)
def test_the_first_real_culprit_is_blamed(pods: list[dict[str, Any]], index: int) -> None:
    lost = found(*(replace(a_pod(number, "Failed"), **pods[number]) for number in (0, 1)))
    assert culprit(lost).index == index
    assert culprit(tuple(reversed(lost))).index == index
