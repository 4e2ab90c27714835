"""The pure parts: peers, membership, joining, Kubeflow's payload, rate limits."""

from dataclasses import replace
from datetime import UTC, datetime

import pytest

from headway_api.messages import PeersResponse, ProgressReport
from headway_operator.progress.access import Member, bearer_token, member, missed
from headway_operator.progress.joining import directions, join_response
from headway_operator.progress.keys import job_key
from headway_operator.progress.peers import peers_of
from headway_operator.progress.ratelimit import RateLimiter
from headway_operator.progress.refusals import Refusal
from headway_operator.progress.summary import (
    KubeflowStatus,
    from_kubeflow,
    with_known_course,
    with_known_progress,
)
from headway_operator.progress.tokens import Caller
from headway_operator.trainingjob.view import Pod

NOW = datetime(2026, 11, 21, 12, 0, 30, tzinfo=UTC)
JOB = {
    "metadata": {"namespace": "ns", "name": "job", "uid": "job-uid"},
    "spec": {"workers": {"replicas": 2}},
    "status": {},
}


def pod(number, **changes):
    made = Pod(
        name=f"job-{number}",
        uid=f"u{number}",
        version=1,
        owner="job-uid",
        index=number,
        attempt=0,
        spec_hash="",
        phase="Running",
        created=NOW,
        address=f"10.0.0.{number}",
    )
    return replace(made, **changes)


def test_peers_are_told_by_index_with_replicas():
    found = peers_of(JOB, [pod(1), pod(0)])
    assert [(peer.index, peer.uid, peer.address) for peer in found.peers] == [
        (0, "u0", "10.0.0.0"),
        (1, "u1", "10.0.0.1"),
    ]
    assert found.replicas == 2


@pytest.mark.parametrize(
    "changes",
    [
        {"address": ""},
        {"deleting": NOW},
        {"removal": "asked"},
        {"phase": "Failed"},
        {"phase": "Succeeded"},
        {"owner": "namesake-of-yesterday"},
        {"index": -1},
    ],
)
def test_a_pod_that_can_not_be_reached_or_will_go_is_no_peer(changes):
    assert [peer.index for peer in peers_of(JOB, [pod(0), pod(1, **changes)]).peers] == [0]


def test_the_version_changes_with_what_is_told_and_with_nothing_else():
    base = peers_of(JOB, [pod(0), pod(1)]).version
    assert peers_of(JOB, [pod(1), pod(0)]).version == base
    assert peers_of(JOB, [pod(0, version=9, ready=True), pod(1)]).version == base
    grown = {**JOB, "spec": {"workers": {"replicas": 3}}}
    others = {
        peers_of(JOB, [pod(0)]).version,
        peers_of(JOB, [pod(0), pod(1, address="10.0.0.9")]).version,
        peers_of(JOB, [pod(0), pod(1, uid="new")]).version,
        peers_of(grown, [pod(0), pod(1)]).version,
        base,
    }
    assert len(others) == 5


def test_a_job_without_workers_has_one_replica():
    assert peers_of({**JOB, "spec": {}}, []).replicas == 1


def caller(name="job-0", uid="u0"):
    return Caller("ns", name, uid, "default")


def test_a_pod_of_the_job_is_a_member_even_while_it_saves_before_its_end():
    assert member(caller(), JOB, [pod(0, deleting=NOW), pod(1)]).index == 0


@pytest.mark.parametrize(
    ("who", "pods", "code"),
    [
        (caller("job-1", "u9"), [pod(0)], 503),  # faster than the cache
        (caller("job-0", "u9"), [pod(0)], 503),  # the successor, or a zombie
        (caller("other-0", "u9"), [pod(0)], 403),
        (caller("job-1-0", "u9"), [pod(0)], 403),  # of the job named job-1
        (caller("job-", "u9"), [pod(0)], 403),
        (caller("job-x", "u9"), [pod(0)], 403),
        (caller("job-0", "u0"), [pod(0, owner="namesake")], 403),
        (caller("job-0", "u0"), [pod(0, owner="")], 403),
        (caller("job-0", "u0"), [pod(0, index=-1)], 403),
    ],
)
def test_others_are_refused_and_unknown_ones_told_to_retry(who, pods, code):
    with pytest.raises(Refusal) as refusal:
        member(who, JOB, pods)
    assert (refusal.value.code, refusal.value.retry_after) == (code, 1 if code == 503 else None)


@pytest.mark.parametrize(
    ("index", "said", "counts"),
    [
        (0, {"u1", "u2"}, {"u1", "u2"}),
        (1, {"u0"}, {"u0"}),
        # Workers are connected to the lead alone; nobody speaks against itself.
        (1, {"u1", "u2"}, set()),
        (0, {"u0"}, set()),
        # Gone, of a namesake, or no pod of a worker.
        (0, {"u9", "u3", "u-1"}, set()),
    ],
)
def test_a_word_counts_only_about_who_one_is_connected_to(index, said, counts):
    pods = [pod(0), pod(1), pod(2), pod(3, owner="namesake"), pod(-1)]
    assert missed(Member(f"u{index}", index), said, JOB, pods) == counts


@pytest.mark.parametrize("header", [None, "", "Bearer", "Bearer ", "Basic abc", "token"])
def test_without_a_bearer_token_nobody_gets_in(header):
    with pytest.raises(Refusal) as refusal:
        bearer_token(header)
    assert refusal.value.code == 401


def test_the_scheme_is_case_insensitive():
    assert bearer_token("bearer abc") == "abc"


PEERS = PeersResponse(version="v", replicas=2)


def report(**changes):
    return ProgressReport(**{"session": "s", "attempt": 1, "generation": 4, **changes})


def test_joining_tells_the_highest_generation_known_anywhere():
    job = {**JOB, "status": {"generation": 3, "restarts": {"counted": 2}}}
    assert join_response(job, PEERS, None, b"k").generation == 3
    assert join_response(job, PEERS, report(), b"k").generation == 4
    assert join_response(job, PEERS, report(generation=1), b"k").generation == 3
    assert join_response(job, PEERS, None, b"k").restarts_counted == 2
    assert join_response(JOB, PEERS, None, b"k").generation == 0


def test_joining_hands_out_the_key_of_this_very_job():
    assert join_response(JOB, PEERS, None, b"k").job_key == job_key(b"k", "job-uid")


def test_joining_tells_the_policy_of_the_job_or_else_of_its_runtime():
    runtime = {"runtime": {"failurePolicy": {"maxRestarts": 3}}}
    own, own_defaults = {"failurePolicy": {"maxRestarts": 5}}, {"failurePolicy": {}}
    assert join_response(JOB, PEERS, None, b"k").failure_policy.max_restarts == 10
    job = {**JOB, "status": runtime}
    assert join_response(job, PEERS, None, b"k").failure_policy.max_restarts == 3
    job = {**JOB, "status": runtime, "spec": own}
    assert join_response(job, PEERS, None, b"k").failure_policy.max_restarts == 5
    job = {**JOB, "status": runtime, "spec": own_defaults}
    assert join_response(job, PEERS, None, b"k").failure_policy.max_restarts == 10


KUBEFLOW = KubeflowStatus.model_validate(
    {
        "progressPercentage": 67,
        "estimatedRemainingSeconds": 3600,
        "metrics": [{"name": "loss", "value": "0.12"}],
        "lastUpdatedTime": "2026-11-21T12:00:00.5+02:00",
    }
)


def test_kubeflows_report_becomes_progress():
    told = from_kubeflow(KUBEFLOW, JOB, None, NOW)
    assert (told.step, told.total_steps, told.eta_seconds) == (67, 100, 3600)
    assert told.metrics == {"loss": "0.12"}
    assert told.updated_at == "2026-11-21T10:00:00Z"
    assert from_kubeflow(KubeflowStatus(), JOB, None, NOW).updated_at == "2026-11-21T12:00:30Z"


def test_kubeflows_report_leaves_session_and_restarts_as_the_agent_told_them():
    """Another session with fewer restarts would have them all counted again."""
    latest = report(
        restarts_total=3, restarts_counted=2, step=5, total_steps=50, metrics={"a": "1"}
    )
    told = from_kubeflow(KUBEFLOW, JOB, latest, NOW)
    assert (told.session, told.generation, told.restarts_total) == ("s", 4, 3)
    assert told.restarts_counted == 2
    assert (told.step, told.total_steps) == (5, 50)  # exact beats a percentage
    assert told.metrics == {"a": "1", "loss": "0.12"}


def test_kubeflows_report_without_an_agents_takes_them_from_the_status():
    lead = {"session": "s", "total": 3, "counted": 2}
    job = {**JOB, "status": {"attempt": 2, "generation": 7, "restarts": {"lead": lead}}}
    told = from_kubeflow(KUBEFLOW, job, None, NOW)
    assert (told.session, told.restarts_total, told.restarts_counted) == ("s", 3, 2)
    assert (told.attempt, told.generation) == (2, 7)


def test_kubeflows_progress_moves_on():
    first = from_kubeflow(KUBEFLOW, JOB, None, NOW)
    later = KubeflowStatus.model_validate({"progressPercentage": 70})
    assert from_kubeflow(later, JOB, first, NOW).step == 70


def test_an_agent_that_sees_no_steps_does_not_wipe_out_what_the_script_said():
    known = from_kubeflow(KUBEFLOW, JOB, report(), NOW)
    merged = with_known_progress(report(state="Restarting", restarts_total=1), known)
    assert (merged.step, merged.metrics, merged.updated_at) == (
        67,
        {"loss": "0.12"},
        known.updated_at,
    )
    assert (merged.state, merged.restarts_total) == ("Restarting", 1)
    assert with_known_progress(report(step=1), known).step == 1
    assert with_known_progress(report(session="new"), known).step is None
    assert with_known_progress(report(), None).step is None


class Monotonic:
    now = 0.0

    def __call__(self):
        return self.now


def test_a_burst_is_allowed_then_the_rate_each_pod_for_itself():
    clock = Monotonic()
    limiter = RateLimiter(20, 40, monotonic=clock)
    assert sum(limiter.allow("a") for _ in range(100)) == 40
    assert limiter.allow("b")
    clock.now = 1.0
    assert sum(limiter.allow("a") for _ in range(100)) == 20
    clock.now = 1000.0
    assert sum(limiter.allow("a") for _ in range(100)) == 40


def test_pods_that_are_gone_cost_no_memory():
    clock = Monotonic()
    limiter = RateLimiter(20, 40, monotonic=clock)
    for second in range(50):
        clock.now = float(second)
        for number in range(200):
            limiter.allow((second, number))
    assert limiter.size <= 2048


def observing(*metrics, **spec):
    return {**JOB, "spec": {**JOB["spec"], "observe": {"metrics": list(metrics)}, **spec}}


def test_a_lead_is_told_where_to_pause_and_what_to_observe():
    job = observing("loss", pauseAtStep=30)
    peers = peers_of(job, [pod(0)])
    told = join_response(job, peers, None, b"secret").directions
    assert (told.pause_at_step, told.observe) == (30, ["loss"])
    assert told == directions(job)
    assert directions(JOB).pause_at_step is None
    assert directions(JOB).observe == []


def kubeflow(percent, *metrics):
    said = [{"name": name, "value": value} for name, value in metrics]
    return KubeflowStatus.model_validate({"progressPercentage": percent, "metrics": said})


def test_what_is_observed_may_come_by_kubeflows_protocol():
    """A percentage counts as steps of a hundred; what is no number, or not asked for, is not."""
    job = observing("loss", "note", "later")
    told = kubeflow(10, ("loss", "0.5"), ("note", "well"), ("lr", "1"), ("later", "NaN"))
    first = from_kubeflow(told, job, None, NOW)
    assert [(each.metric, each.last.step, each.last.value) for each in first.observations] == [
        ("loss", 10, "0.5"),
        ("later", 10, "nan"),
    ]
    second = with_known_course(
        from_kubeflow(kubeflow(20, ("loss", "0.25")), job, first, NOW), first
    )
    (loss, later) = second.observations
    assert [(point.step, point.value) for point in loss.curve] == [(10, "0.5"), (20, "0.25")]
    assert later.last.value == "nan"


def test_where_the_agent_sees_steps_kubeflows_metrics_belong_to_them():
    latest = ProgressReport(session="s", attempt=1, generation=1, step=700, total_steps=9000)
    told = from_kubeflow(kubeflow(10, ("loss", "0.5")), observing("loss"), latest, NOW)
    assert told.observations[0].last.step == 700
