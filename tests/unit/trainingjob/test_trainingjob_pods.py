"""The pods that are made of a job."""

from typing import Any

import pytest
from job_views import a_job, digest

from headway_api import contract
from headway_operator.settings import GpuPool, Settings
from headway_operator.trainingjob.merge import merged
from headway_operator.trainingjob.pods import Blueprint, blueprint, spec_hash
from headway_operator.trainingjob.stuck import Stuck

ENDPOINT = Settings(endpoint_url="https://op.svc:8443/", endpoint_ca="PEM", token_seconds=700)
STORAGE = {"uri": "s3://b/p/", "endpoint": "http://s3", "secretRef": {"name": "keys"}}


def drawn(settings: Settings | None = None, **spec: Any) -> Blueprint:
    job = a_job(**spec)
    return blueprint(job, merged(job.spec, None), settings or Settings())


def a_made_pod(settings: Settings | None = None, **spec: Any) -> dict[str, Any]:
    return drawn(settings, **spec).pod(1, 3)


def container(pod: dict[str, Any]) -> dict[str, Any]:
    (only,) = pod["spec"]["containers"]
    found: dict[str, Any] = only
    return found


def variables(pod: dict[str, Any]) -> dict[str, Any]:
    return {item["name"]: item.get("value") for item in container(pod)["env"]}


def volume(pod: dict[str, Any], name: str) -> dict[str, Any]:
    return next(item for item in pod["spec"]["volumes"] if item["name"] == name)


def test_a_pod_meets_the_restricted_standard_and_touches_no_api() -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    spec = a_made_pod()["spec"]
    assert spec["securityContext"] == {
        "runAsNonRoot": True,
        "seccompProfile": {"type": "RuntimeDefault"},
    }
    assert container({"spec": spec})["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }
    assert spec["automountServiceAccountToken"] is False
    assert spec["enableServiceLinks"] is False
    assert spec["restartPolicy"] == "Never"


def test_names_labels_and_owner_are_those_of_the_contract() -> None:
    metadata = a_made_pod()["metadata"]
    assert metadata["name"] == "digits-1"
    assert metadata["labels"] == {
        contract.LABEL_JOB: "digits",
        contract.LABEL_INDEX: "1",
        contract.LABEL_ROLE: "worker",
        contract.LABEL_ATTEMPT: "3",
    }
    (owner,) = metadata["ownerReferences"]
    assert owner["uid"] == "0123456789ab"
    assert owner["controller"] is True
    assert owner["blockOwnerDeletion"] is True
    assert drawn().pod(0, 1)["metadata"]["labels"][contract.LABEL_ROLE] == "lead"


def test_the_agent_is_pid_1_and_parameters_reach_the_command() -> None:
    made = a_made_pod(
        command=["python", "train.py", "--lr=${params.lr.base}"], parameters={"lr.base": "0.1"}
    )
    assert container(made)["command"] == ["headway-agent"]
    assert container(made)["args"] == ["--", "python", "train.py", "--lr=0.1"]
    assert variables(made)["HEADWAY_PARAM_LR_BASE"] == "0.1"
    assert variables(made)[contract.ENV_PARAMETERS] == '{"lr.base": "0.1"}'


def test_the_environment_tells_the_pod_who_it_is() -> None:
    made = a_made_pod(replicas=5, storage=STORAGE, checkpoint={"everySteps": 5})
    values = variables(made)
    assert values[contract.ENV_INDEX] == "1"
    assert values[contract.ENV_ATTEMPT] == "3"
    assert values[contract.ENV_REPLICAS] == "5"
    assert values[contract.ENV_STORAGE_URI] == "s3://b/p/digits-01234567"
    assert values[contract.ENV_STORAGE_ENDPOINT] == "http://s3"
    assert '"everySteps": 5' in values[contract.ENV_CHECKPOINT]
    assert contract.ENV_STORAGE_REGION not in values
    paths = {
        item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"]
        for item in container(made)["env"]
        if "valueFrom" in item
    }
    assert paths == {
        contract.ENV_POD_NAME: "metadata.name",
        contract.ENV_POD_UID: "metadata.uid",
        contract.ENV_POD_IP: "status.podIP",
    }
    assert container(made)["envFrom"] == [{"secretRef": {"name": "keys"}}]


def test_users_variables_come_last_so_that_they_can_refer_to_ours() -> None:
    names = list(variables(a_made_pod(pod={"env": [{"name": "A", "value": "$(HEADWAY_POD_IP)"}]})))
    assert names[-1] == "A"


def test_horovods_settings_are_variables_and_the_users_own_go_before_them() -> None:
    settings = {
        "stallCheck": {"enabled": False, "warnAfterSeconds": 5, "abortAfterSeconds": 9},
        "fusion": {"thresholdBytes": 0, "cycleTimeMilliseconds": "3.5"},
        "autotune": {"warmupSamples": 1, "stepsPerSample": 2, "maxSamples": 3, "log": True},
        "timeline": {"markCycles": True},
        "timeoutSeconds": 60,
    }
    own = {"env": [{"name": "HOROVOD_CYCLE_TIME", "value": "2"}]}
    made = a_made_pod(framework="Horovod", horovod=settings, pod=own, storage=STORAGE)
    names = [each["name"] for each in container(made)["env"]]
    assert names.count("HOROVOD_CYCLE_TIME") == 1
    given = {n: v for n, v in variables(made).items() if n.startswith("HOROVOD_")}
    assert given == {
        "HOROVOD_STALL_CHECK_DISABLE": "1",
        "HOROVOD_STALL_CHECK_TIME_SECONDS": "5",
        "HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "9",
        "HOROVOD_FUSION_THRESHOLD": "0",
        "HOROVOD_CYCLE_TIME": "2",
        "HOROVOD_AUTOTUNE": "1",
        "HOROVOD_AUTOTUNE_WARMUP_SAMPLES": "1",
        "HOROVOD_AUTOTUNE_STEPS_PER_SAMPLE": "2",
        "HOROVOD_AUTOTUNE_BAYES_OPT_MAX_SAMPLES": "3",
        "HOROVOD_TIMELINE_MARK_CYCLES": "1",
        "HOROVOD_GLOO_TIMEOUT_SECONDS": "60",
    }
    assert variables(made)[contract.ENV_HOROVOD_FILES] == "timeline,autotune"


@pytest.mark.parametrize(
    ("framework", "settings", "told"),
    [
        ("Horovod", None, {}),
        ("Horovod", {}, {}),
        ("Horovod", {"stallCheck": {"warnAfterSeconds": 5}},
         {"HOROVOD_STALL_CHECK_TIME_SECONDS": "5"}),
        ("Horovod", {"timeline": {"enabled": False}}, {"HOROVOD_TIMELINE_MARK_CYCLES": "0"}),
        ("Horovod", {"autotune": {"enabled": False, "log": True}}, {"HOROVOD_AUTOTUNE": "0"}),
        # A runtime for both frameworks may have them.
        ("PyTorch", {"timeoutSeconds": 60, "timeline": {}}, {}),
    ],
)  # fmt: skip
def test_what_is_unset_is_horovods_own_default(
    framework: str, settings: dict[str, Any] | None, told: dict[str, str]
) -> None:
    made = variables(a_made_pod(framework=framework, horovod=settings))
    assert {name: value for name, value in made.items() if "HOROVOD" in name} == told


@pytest.mark.parametrize(
    ("spec", "size"),
    [
        ({"pod": {"sharedMemory": "2Gi"}}, "2Gi"),
        ({"workers": {"resources": {"limits": {"memory": "8Gi"}}}}, str(4 * 2**30)),
        ({}, None),
    ],
)
def test_shared_memory_is_what_is_asked_for_or_half_the_limit(
    spec: dict[str, Any], size: str | None
) -> None:
    shared = volume(a_made_pod(**spec), "headway-shm")["emptyDir"]
    assert shared["medium"] == "Memory"
    assert shared.get("sizeLimit") == size


def test_writable_folders_are_volumes() -> None:
    mounts = {item["mountPath"] for item in container(a_made_pod())["volumeMounts"]}
    assert mounts == {contract.TMP_DIR, contract.SCRATCH_DIR, contract.SHM_DIR}


def test_tokens_are_for_this_job_alone_and_kubeflows_clients_find_theirs() -> None:
    made = a_made_pod(ENDPOINT)
    (own,) = volume(made, "headway-token")["projected"]["sources"]
    assert own["serviceAccountToken"] == {
        "audience": "headway.dev/v1alpha1/namespaces/lab/trainingjobs/digits",
        "expirationSeconds": 700,
        "path": "token",
    }
    token, authority = volume(made, "headway-kubeflow")["projected"]["sources"]
    assert token["serviceAccountToken"]["audience"].startswith("trainer.kubeflow.org/")
    assert authority["downwardAPI"]["items"][0]["path"] == "ca.crt"
    values = variables(made)
    assert values[contract.ENV_ENDPOINT] == "https://op.svc:8443"
    assert values[contract.ENV_ENDPOINT_CA] == "PEM"
    assert values["KUBEFLOW_TRAINER_SERVER_URL"] == (
        "https://op.svc:8443/apis/trainer.kubeflow.org/v1alpha1/namespaces/lab/trainjobs/digits/status"
    )


def test_without_an_endpoint_a_pod_has_no_token() -> None:
    assert not any("token" in item["name"] for item in a_made_pod()["spec"]["volumes"])


def test_gpus_are_requested_and_limited_and_the_pool_selects_nodes() -> None:
    pool = GpuPool(node_selector={"pool": "a"}, tolerations=({"key": "gpu"},))
    made = a_made_pod(
        Settings(pools={"a": pool}),
        gpu={"pools": ["a"], "perWorker": 4},
        workers={"resources": {"limits": {"cpu": "2"}}},
        pod={"nodeSelector": {"zone": "z"}},
    )
    resources = container(made)["resources"]
    assert resources["limits"] == {"cpu": "2", "nvidia.com/gpu": 4}
    assert resources["requests"] == {"nvidia.com/gpu": 4}
    assert made["spec"]["nodeSelector"] == {"pool": "a", "zone": "z"}
    assert {"key": "gpu"} in made["spec"]["tolerations"]


def test_a_silent_node_is_given_up_after_half_a_minute() -> None:
    seconds = {
        entry["key"]: entry["tolerationSeconds"]
        for entry in a_made_pod()["spec"]["tolerations"]
        if entry.get("effect") == "NoExecute"
    }
    assert seconds == {
        "node.kubernetes.io/not-ready": 30,
        "node.kubernetes.io/unreachable": 30,
    }


def test_grace_is_the_jobs_or_the_operators() -> None:
    assert a_made_pod()["spec"]["terminationGracePeriodSeconds"] == 60
    made = a_made_pod(pod={"terminationGracePeriodSeconds": 7})
    assert made["spec"]["terminationGracePeriodSeconds"] == 7
    assert variables(made)[contract.ENV_GRACE_SECONDS] == "7"


@pytest.mark.parametrize(
    ("measured", "own", "expected"),
    [
        (None, None, 60),
        (4, None, 60),
        (15, None, 60),
        (16, None, 63),
        (900, None, 2715),
        (5000, None, 3600),
        (900, 30, 30),
    ],
)
def test_pods_get_three_times_what_a_checkpoint_takes_unless_the_user_says_otherwise(
    measured: int | None, own: int | None, expected: int
) -> None:
    status = {"checkpoint": {"step": 1, "seconds": measured}}
    pod = {"terminationGracePeriodSeconds": own} if own else {}
    job = a_job(status=status, pod=pod)
    made = blueprint(job, merged(job.spec, None), Settings()).pod(0, 1)
    assert made["spec"]["terminationGracePeriodSeconds"] == expected
    assert variables(made)["HEADWAY_GRACE_SECONDS"] == str(expected)
    assert made["metadata"]["annotations"][contract.ANNOTATION_SPEC_HASH] == digest(a_job(pod=pod))


def test_modules_to_preload_reach_the_agent() -> None:
    made = a_made_pod(preload=["transformers", "my.own_module"])
    assert variables(made)[contract.ENV_PRELOAD] == "transformers,my.own_module"
    assert contract.ENV_PRELOAD not in variables(a_made_pod())


def test_a_service_is_made_only_for_who_wants_names() -> None:
    assert not drawn().service
    wanted = drawn(network={"service": True})
    service = wanted.headless_service()
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    assert wanted.pod(1, 1)["spec"]["subdomain"] == service["metadata"]["name"]


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ({"command": ["${params.lr}"]}, "UnknownParameter"),
        ({"pod": {"env": [{"name": "HEADWAY_X", "value": "1"}]}}, "ReservedVariable"),
        ({"pod": {"labels": {"headway.dev/role": "x"}}}, "ReservedName"),
        ({"pod": {"annotations": {"headway.dev/x": "x"}}}, "ReservedName"),
        ({"pod": {"volumes": [{"name": "headway-tmp"}]}}, "ReservedName"),
        ({"gpu": {"pools": ["a"]}}, "UnknownPool"),
        (
            {
                "gpu": {"pools": ["one", "two"]},
                "pod": {"affinity": {"nodeAffinity": {"required": []}}},
            },
            "AffinityConflict",
        ),
    ],
)
def test_what_can_be_no_pod_says_what_to_change(spec: dict[str, Any], reason: str) -> None:
    pools = {name: GpuPool(node_selector={"pool": name}) for name in ("one", "two")}
    with pytest.raises(Stuck) as caught:
        a_made_pod(Settings(pools=pools), **spec)
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("change", "replaces"),
    [
        ({"image": "other"}, True),
        ({"parameters": {"lr": "1"}}, True),
        ({"preload": ["transformers"]}, True),
        ({"horovod": {"timeoutSeconds": 60}}, True),
        ({"replicas": 3}, True),
        ({"pod": {"labels": {"a": "b"}}}, True),
        ({"suspend": True}, False),
        ({"activeDeadlineSeconds": 5}, False),
        ({"failurePolicy": {"maxRestarts": 1, "progressDeadlineSeconds": 60}}, False),
        ({"ttlSecondsAfterFinished": 5}, False),
        ({"scheduling": {"startTimeoutSeconds": 5}}, False),
        ({"framework": "PyTorch"}, False),
    ],
)
def test_only_an_edit_that_pods_can_see_replaces_them(
    change: dict[str, Any], replaces: bool
) -> None:
    assert (digest(a_job(**change)) != digest(a_job())) is replaces


def test_an_elastic_group_changes_size_without_being_replaced() -> None:
    elastic = {"minReplicas": 1, "maxReplicas": 4}
    sizes = [a_job(workers={"replicas": size, "elastic": elastic}) for size in (2, 3)]
    assert digest(sizes[0]) == digest(sizes[1])


def test_the_hash_is_the_same_in_every_release() -> None:
    """A rollout of the operator must not restart anybody's training."""
    assert spec_hash(a_job().spec) == "891e4d42fe682dce"
