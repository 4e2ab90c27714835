"""What is read from a pod, and that nothing in it can break the reading."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from job_views import stamp

from headway_api.contract import (
    ANNOTATION_AGENT_ADDRESS,
    ANNOTATION_AVOIDS,
    CONTAINER,
    LABEL_ATTEMPT,
    LABEL_INDEX,
)
from headway_operator.trainingjob.view import parse_pod

REPORT = {"reason": "Error", "exitCode": 1, "message": "m", "culprit": None}


def item(state: dict[str, Any] | None = None, **status: Any) -> dict[str, Any]:
    return {
        "metadata": {
            "name": "digits-1",
            "uid": "u",
            "resourceVersion": "12",
            "creationTimestamp": stamp(),
            "labels": {LABEL_INDEX: "1", LABEL_ATTEMPT: "3"},
            "ownerReferences": [
                {"uid": "not-controlling"},
                {"uid": "owner", "controller": True},
            ],
        },
        "spec": {"nodeName": "node-0"},
        "status": {"containerStatuses": [{"name": CONTAINER, "state": state or {}}], **status},
    }


def ended(message: str, **fields: Any) -> dict[str, Any]:
    return {"terminated": {"exitCode": 1, "finishedAt": stamp(), "message": message, **fields}}


def test_identity_comes_from_labels_and_the_controlling_owner() -> None:
    pod = parse_pod(item())
    assert (pod.index, pod.attempt, pod.owner, pod.version) == (1, 3, "owner", 12)


def test_grace_and_avoided_nodes_are_read_back() -> None:
    made = item()
    made["spec"]["terminationGracePeriodSeconds"] = 90
    made["metadata"]["annotations"] = {ANNOTATION_AVOIDS: "node-1,node-2"}
    pod = parse_pod(made)
    assert (pod.grace, pod.avoids) == (90, ("node-1", "node-2"))
    assert parse_pod(item()).avoids == ()


@pytest.mark.parametrize("label", ["", "-1", "x", "1.5"])
def test_an_odd_index_is_none_of_ours(label: str) -> None:
    odd = item()
    odd["metadata"]["labels"] = {LABEL_INDEX: label}
    assert parse_pod(odd).index == -1


@pytest.mark.parametrize(
    ("message", "understood"),
    [
        (json.dumps(REPORT), True),
        (json.dumps({**REPORT, "fromANewerAgent": 1}), True),
        (json.dumps(REPORT)[:-4], False),
        ('{"reason": "Error"}', False),
        ("Traceback (most recent call last):", False),
        ("{'not': json}", False),
        ("", False),
    ],
)
def test_last_words_are_read_or_taken_as_plain_text(message: str, understood: bool) -> None:
    pod = parse_pod(item(ended(message), phase="Failed"))
    assert (pod.report is not None) is understood
    assert pod.message == message


@given(st.text() | st.builds(json.dumps, st.dictionaries(st.text(), st.integers())))
def test_no_last_words_break_the_reading(message: str) -> None:
    assert parse_pod(item(ended(message), phase="Failed")).message == message[:4096]


@pytest.mark.parametrize(
    ("phase", "ready", "expected"),
    [("Running", "True", True), ("Running", "False", False), ("Failed", "True", False)],
)
def test_ready_is_a_running_pod_that_says_so(phase: str, ready: str, expected: bool) -> None:
    conditions = [{"type": "Ready", "status": ready}]
    assert parse_pod(item(phase=phase, conditions=conditions)).ready is expected


def test_a_disruption_counts_only_while_its_condition_is_true() -> None:
    target = {"type": "DisruptionTarget", "reason": "PreemptionByScheduler"}
    for status, expected in (("True", "PreemptionByScheduler"), ("False", "")):
        assert parse_pod(item(conditions=[target | {"status": status}])).disruption == expected


@pytest.mark.parametrize(
    ("conditions", "state", "expected"),
    [
        (
            [
                {
                    "type": "PodScheduled",
                    "status": "False",
                    "reason": "Unschedulable",
                    "message": "m",
                }
            ],
            {},
            "Unschedulable: m",
        ),
        ([], {"waiting": {"reason": "ImagePullBackOff", "message": "m"}}, "ImagePullBackOff: m"),
        ([], {"waiting": {"reason": "ContainerCreating"}}, ""),
        ([], {}, ""),
    ],
)
def test_why_a_pod_waits_is_told_where_it_is_not_usual(
    conditions: list[dict[str, str]], state: dict[str, Any], expected: str
) -> None:
    assert parse_pod(item(state, conditions=conditions)).waiting == expected


def test_a_scheduling_gate_is_seen() -> None:
    gate = {"type": "PodScheduled", "status": "False", "reason": "SchedulingGated"}
    assert parse_pod(item(conditions=[gate])).gated


def test_local_mode_gives_the_address_in_an_annotation() -> None:
    local = item(podIP="10.0.0.1")
    assert parse_pod(local).address == "10.0.0.1"
    local["metadata"]["annotations"] = {ANNOTATION_AGENT_ADDRESS: "127.0.0.2"}
    assert parse_pod(local).address == "127.0.0.2"


def test_other_containers_of_the_pod_are_not_looked_at() -> None:
    pod = item()
    pod["status"]["containerStatuses"] = [{"name": "sidecar", "state": ended("x")}]
    assert parse_pod(pod).exit_code is None
