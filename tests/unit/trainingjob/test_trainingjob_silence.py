"""Pods lost by their peers' word, and the nodes that their successors keep away from."""

from dataclasses import replace
from typing import Any

import pytest
from job_views import NOW, a_job, a_pod, a_view, at, conditions, running, settled, stamp

from headway_operator.trainingjob.avoidance import avoided, keeping_off, shut_out_until
from headway_operator.trainingjob.nodes import fell_silent, removal
from headway_operator.trainingjob.plan import Deletion
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import Pod

SILENT = frozenset({"uid-1"})
FORCED = Deletion("digits-1", "uid-1", grace_seconds=0)
REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"


def not_on(*names: str) -> list[dict[str, Any]]:
    return [{"key": "metadata.name", "operator": "NotIn", "values": [name]} for name in names]


def restarted(**restarts: Any) -> dict[str, Any]:
    """The status after the restart was counted, and before anything was done about it."""
    last = {"time": stamp(), "reason": "NodeLost", "worker": 1, "message": "Worker 1 is silent."}
    node = {"name": "node-1", "time": stamp()}
    base = {"total": 1, "handledPods": ["uid-1"], "silentNodes": [node], "last": last}
    return running(phase="Restarting", restarts=base | restarts)


@pytest.mark.parametrize(
    ("pod", "lost"),
    [
        (a_pod(1), True),
        (a_pod(1, created=at(-30)), True),
        (a_pod(1, created=at(-29)), False),  # its successor gets half a minute, too
        (a_pod(1, deleting=at(20)), False),  # it saves its state
        (a_pod(1, "Pending"), False),
        (a_pod(1, "Failed"), False),
        (a_pod(0), False),
    ],
)
def test_only_a_pod_that_seems_to_run_can_fall_silent(pod: Pod, lost: bool) -> None:
    assert fell_silent(pod, a_view(a_job(), silent=SILENT), NOW) is lost


def test_a_silent_pod_is_counted_and_its_node_remembered_before_it_is_forced_away() -> None:
    job = a_job(status=running())
    view = a_view(job, a_pod(0), a_pod(1, node="node-1"), silent=SILENT)
    plan = reconcile(view, NOW)
    assert plan.status_first
    assert plan.delete == (FORCED,)
    assert plan.create == ()
    assert conditions(plan.status)["Running"] == ("False", "Restarting")
    restarts = plan.status and plan.status.restarts
    assert restarts is not None
    assert (restarts.total, restarts.counted, restarts.handled_pods) == (1, 0, ["uid-1"])
    assert restarts.last is not None
    assert (restarts.last.reason, restarts.last.worker) == ("NodeLost", 1)
    assert "node-1" in restarts.last.message
    assert avoided(restarts, NOW) == ("node-1",)
    assert [event.reason for event in plan.events] == ["Restarting"]


def test_an_operator_that_comes_after_finishes_the_removal_without_any_word() -> None:
    """Nobody speaks against a pod any more that it has not heard of; asking its node is in vain."""
    pod = a_pod(1, node="node-1")
    view = a_view(a_job(status=restarted()), a_pod(0), pod)
    assert reconcile(view, at(5)).delete == (FORCED,)
    assert removal(pod, view, at(61)) == Deletion("digits-1", "uid-1"), "its node may be well again"
    elsewhere = replace(pod, node="node-2")
    assert removal(elsewhere, view, at(5)) == Deletion("digits-1", "uid-1")


def test_the_successor_keeps_away_from_the_node_for_a_minute() -> None:
    view = a_view(a_job(status=restarted(handledPods=None)), a_pod(0))
    (made,) = reconcile(view, at(59)).create
    terms = made["spec"]["affinity"]["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert terms == [{"matchFields": not_on("node-1")}]
    assert made["metadata"]["annotations"]["headway.dev/avoids-nodes"] == "node-1"
    (made,) = reconcile(view, at(60)).create
    assert "affinity" not in made["spec"]


def test_a_node_of_long_ago_is_forgotten_with_the_next_write_and_not_by_one_of_its_own() -> None:
    restarts = restarted(handledPods=None)["restarts"]
    view = a_view(a_job(status=running(restarts=restarts)), a_pod(0), a_pod(1))
    assert settled(view, at(3600))
    lost = a_view(view.job, a_pod(0), a_pod(1, node="node-2"), silent=SILENT)
    plan = reconcile(lost, at(3600))
    assert plan.status is not None
    assert avoided(plan.status.restarts, at(3600)) == ("node-2",)
    assert plan.status.restarts is not None
    assert len(plan.status.restarts.silent_nodes or ()) == 1


TERM = {"matchExpressions": [{"key": "zone", "operator": "In", "values": ["a"]}]}


@pytest.mark.parametrize(
    ("affinity", "expected"),
    [
        (None, {"nodeAffinity": {REQUIRED: {"nodeSelectorTerms": [{"matchFields": not_on("n")}]}}}),
        # Terms are alternatives: the node has to be excluded by each.
        (
            {
                "nodeAffinity": {
                    REQUIRED: {"nodeSelectorTerms": [TERM, {"matchFields": not_on("m")}]}
                }
            },
            {
                "nodeAffinity": {
                    REQUIRED: {
                        "nodeSelectorTerms": [
                            {**TERM, "matchFields": not_on("n")},
                            {"matchFields": not_on("m", "n")},
                        ]
                    }
                }
            },
        ),
        (
            {"podAffinity": {"x": 1}, "nodeAffinity": {"preferred": [1]}},
            {
                "podAffinity": {"x": 1},
                "nodeAffinity": {
                    "preferred": [1],
                    REQUIRED: {"nodeSelectorTerms": [{"matchFields": not_on("n")}]},
                },
            },
        ),
    ],
    ids=["none", "terms", "other kinds"],
)
def test_avoiding_nodes_adds_to_what_the_user_asks_for(
    affinity: dict[str, Any] | None, expected: dict[str, Any]
) -> None:
    assert keeping_off(affinity, ["n"]) == expected


def test_each_node_is_a_requirement_of_its_own_as_the_api_server_demands() -> None:
    (term,) = keeping_off(None, ["n", "m"])["nodeAffinity"][REQUIRED]["nodeSelectorTerms"]
    assert term == {"matchFields": not_on("n", "m")}


@pytest.mark.parametrize(
    ("pod", "when"),
    [
        (a_pod(1, "Pending", node="", avoids=("node-1",)), at(-3540)),
        (a_pod(1, "Pending", node=""), None),
        (a_pod(1, "Pending", node="node-2", avoids=("node-1",)), None),
        (a_pod(1, "Failed", node="", avoids=("node-1",)), None),
    ],
)
def test_only_a_pod_that_found_no_node_because_of_those_it_avoids_is_shut_out(
    pod: Pod, when: Any
) -> None:
    assert shut_out_until(pod) == when


def test_a_pod_that_is_shut_out_is_made_anew_without_counting() -> None:
    """In a cluster of one node, a pod that fell silent must be able to come back to it."""
    pending = a_pod(1, "Pending", node="", avoids=("node-1",), created=at(0))
    status = restarted(handledPods=None)
    view = a_view(a_job(status=status), a_pod(0), pending)
    early = reconcile(view, at(20))
    assert early.delete == ()
    assert early.requeue_after == 40
    plan = reconcile(view, at(60))
    assert plan.delete == (Deletion("digits-1", "uid-1"),)
    gone = reconcile(a_view(a_job(status=status), a_pod(0)), at(61))
    (made,) = gone.create
    assert "affinity" not in made["spec"]
    assert gone.status is None or gone.status.restarts is None or gone.status.restarts.total == 1
