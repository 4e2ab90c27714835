"""What becomes of the fields of each kind."""

import shlex
from typing import Any

import pytest
import yaml
from converting import WORKER, checks, mpijob, one, pytorchjob, spec_of, template, told, trainjob

from headway_api.kinds import TRAINING_JOB
from headway_api.validation import admit

RUN = ["mpirun", "-np", "2", "python", "horovod_train.py"]
TORCHRUN = ["torchrun", "train.py"]
PLAIN = template(["python", "train.py"])


def env(document: Any) -> dict[str, str]:
    return {each["name"]: each.get("value", "") for each in spec_of(document)["pod"]["env"]}


# --- MPIJob ----------------------------------------------------------------------------------


def test_an_mpijob_that_says_all_there_is_to_say_needs_no_decision() -> None:
    document = one(mpijob(RUN))
    assert not checks(document)
    assert spec_of(document) == {
        "framework": "Horovod",
        "image": "registry.example.com/a:1",
        "command": ["python", "horovod_train.py"],
        "workers": {"replicas": 2},
    }


@pytest.mark.parametrize(
    ("command", "image", "framework", "asked"),
    [
        (["horovodrun", "-np", "2", "python", "t.py"], "a:1", "Horovod", False),
        (["mpirun", "-np", "2", "python", "t.py"], "horovod/horovod:1", "Horovod", False),
        (["mpirun", "-x", "HOROVOD_TIMELINE=/t", "python", "t.py"], "a:1", "Horovod", False),
        (["mpirun", "-np", "2", "python", "t.py"], "a:1", "PyTorch", True),
    ],
)
def test_horovod_is_found_by_its_traces(
    command: list[str], image: str, framework: str, asked: bool
) -> None:
    document = one(mpijob(command, template(image=image)))
    assert spec_of(document)["framework"] == framework
    assert ("nothing here says Horovod" in checks(document)) == asked


@pytest.mark.parametrize(
    ("options", "spec", "workers", "asked"),
    [
        ("-np 2", {}, {"replicas": 2}, ""),
        ("-np 8", {"slotsPerWorker": 4}, {"replicas": 2, "processesPerWorker": 4}, ""),
        ("-np 8 -N 4", {}, {"replicas": 2, "processesPerWorker": 4}, ""),
        ("-np 6", {"runLauncherAsWorker": True, "slotsPerWorker": 2},
         {"replicas": 3, "processesPerWorker": 2}, ""),
        ("-np 3", {}, {"replicas": 2}, "-np 3 started 3 ranks"),
        ("-np $NP", {}, {"replicas": 2}, ""),
    ],
)  # fmt: skip
def test_sizes_of_an_mpijob(
    options: str, spec: dict[str, Any], workers: dict[str, int], asked: str
) -> None:
    command = ["mpirun", *options.split(), "python", "horovod_train.py"]
    document = one(mpijob(command, **spec))
    assert spec_of(document)["workers"] == workers
    assert asked in checks(document)
    assert bool(asked) == bool(checks(document))


def test_elastic_horovod_counts_ranks_and_headway_pods() -> None:
    command = ["horovodrun", "-np", "4", "--min-np", "2", "--max-np", "8", "python", "t.py"]
    document = one(mpijob(command, slotsPerWorker=2))
    assert spec_of(document)["workers"]["elastic"] == {"minReplicas": 1, "maxReplicas": 4}


def test_ranks_get_the_variables_that_mpirun_passed_on_and_no_others() -> None:
    manifest = mpijob(["mpirun", "-x", "A=1", "-x", "B", "-x", "PATH", "python", "horovod.py"])
    launcher = manifest["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    launcher["containers"][0]["env"] = [
        {"name": "B", "value": "2"},
        {"name": "C", "value": "3"},
        {"name": "OMPI_MCA_x", "value": "4"},
    ]
    worker = manifest["spec"]["mpiReplicaSpecs"]["Worker"]["template"]["spec"]
    worker["containers"][0]["env"] = [{"name": "A", "value": "0"}, {"name": "D", "value": "5"}]
    document = one(manifest)
    assert env(document) == {"A": "1", "D": "5", "B": "2"}
    assert "C is left out: mpirun did not pass it on" in told(document)


def test_horovodrun_passed_all_variables_on() -> None:
    manifest = mpijob(["horovodrun", "-np", "2", "python", "t.py"])
    launcher = manifest["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    launcher["containers"][0]["env"] = [{"name": "C", "value": "3"}]
    assert env(one(manifest)) == {"C": "3"}


@pytest.mark.parametrize(
    ("options", "settings", "left"),
    [
        ("--fusion-threshold-mb 32 --cycle-time-ms 3.5",
         {"fusion": {"thresholdBytes": 33554432, "cycleTimeMilliseconds": "3.5"}}, {}),
        ("--cycle-time-ms 5", {"fusion": {"cycleTimeMilliseconds": 5}}, {}),
        ("--stall-check-warning-time-seconds 9 --stall-check-shutdown-time-seconds 30",
         {"stallCheck": {"warnAfterSeconds": 9, "abortAfterSeconds": 30}}, {}),
        ("--stall-check-shutdown-time-seconds 30", {},
         {"HOROVOD_STALL_SHUTDOWN_TIME_SECONDS": "30"}),
        ("--no-stall-check", {"stallCheck": {"enabled": False}}, {}),
        ("--autotune --autotune-warmup-samples 1 --autotune-bayes-opt-max-samples 8",
         {"autotune": {"enabled": True, "warmupSamples": 1, "maxSamples": 8}}, {}),
        ("--autotune --autotune-steps-per-sample 4",
         {"autotune": {"enabled": True, "stepsPerSample": 4}}, {}),
        ("--autotune --autotune-gaussian-process-noise 0.5", {"autotune": {"enabled": True}},
         {"HOROVOD_AUTOTUNE_GAUSSIAN_PROCESS_NOISE": "0.5"}),
        ("--gloo-timeout-seconds 90", {"timeoutSeconds": 90}, {}),
        ("--mpi-args='-x HOROVOD_FUSION_THRESHOLD=7 -x A=1'", {"fusion": {"thresholdBytes": 7}},
         {"A": "1"}),
        ("--gloo-timeout-seconds 0", {}, {"HOROVOD_GLOO_TIMEOUT_SECONDS": "0"}),
    ],
)  # fmt: skip
def test_what_the_spec_has_fields_for_is_no_variable(
    options: str, settings: dict[str, Any], left: dict[str, str]
) -> None:
    document = one(mpijob(["horovodrun", "-np", "2", *shlex.split(options), "python", "t.py"]))
    spec = spec_of(document)
    assert spec.get("horovod", {}) == settings
    assert {each["name"]: each["value"] for each in spec.get("pod", {}).get("env", [])} == left
    assert not checks(document)
    admit(TRAINING_JOB, yaml.safe_load(document.text))


def test_horovods_variables_become_fields_wherever_they_stand() -> None:
    source = {"configMapKeyRef": {"name": "a", "key": "b"}}
    given = [
        {"name": "HOROVOD_CYCLE_TIME", "value": "2"},
        {"name": "HOROVOD_FUSION_THRESHOLD", "valueFrom": source},
        {"name": "HOROVOD_AUTOTUNE_WARMUP_SAMPLES", "value": "2"},
    ]
    worker = template(env=given)
    command = ["mpirun", "-x", "HOROVOD_GLOO_TIMEOUT_SECONDS=60", "python", "horovod_train.py"]
    spec = spec_of(one(mpijob(command, worker)))
    assert spec["horovod"] == {"fusion": {"cycleTimeMilliseconds": 2}, "timeoutSeconds": 60}
    # What only the cluster knows stays, and what belongs to a switch does not switch it on.
    left = [each["name"] for each in spec["pod"]["env"]]
    assert left == ["HOROVOD_FUSION_THRESHOLD", "HOROVOD_AUTOTUNE_WARMUP_SAMPLES"]


def test_a_timeline_stays_where_it_was_and_storage_is_offered() -> None:
    options = ["--timeline-filename", "/tmp/t.json", "--timeline-mark-cycles"]
    document = one(mpijob(["horovodrun", "-np", "2", *options, "python", "t.py"]))
    wanted = {"HOROVOD_TIMELINE": "/tmp/t.json", "HOROVOD_TIMELINE_MARK_CYCLES": "1"}
    assert env(document) == wanted
    assert "horovod.timeline keeps one in storage instead" in checks(document)


@pytest.mark.parametrize(
    ("launcher", "options", "worker", "directory"),
    [
        ("/app", [], None, "/app"),
        ("/app", ["--wdir", "/data"], None, "/data"),
        ("/app", [], "/root", "/app"),
        (None, ["--wdir", "/data"], "/root", "/data"),
        (None, [], "/root", "/root"),
    ],
)
def test_ranks_begin_where_mpirun_let_them_begin(
    launcher: str | None, options: list[str], worker: str | None, directory: str
) -> None:
    manifest = mpijob(["mpirun", *options, "python", "horovod.py"], template(workingDir=worker))
    replicas = manifest["spec"]["mpiReplicaSpecs"]
    replicas["Launcher"]["template"]["spec"]["containers"][0]["workingDir"] = launcher
    assert spec_of(one(manifest))["pod"] == {"workingDir": directory}


def test_replicas_outside_of_their_limits_are_asked_about() -> None:
    document = one(pytorchjob(PLAIN, elasticPolicy={"minReplicas": 4, "maxReplicas": 8}))
    assert "from 4 to 8 pods were asked for, and 3 replicas" in checks(document)


def test_a_launcher_without_mpirun_is_asked_about() -> None:
    document = one(mpijob(["deepspeed", "train.py"]))
    assert "there is no mpirun or horovodrun" in checks(document)
    assert "deepspeed starts ranks by itself" in checks(document)


def test_a_program_that_is_not_python_is_asked_about() -> None:
    assert "does not look like Python" in checks(one(mpijob(["mpirun", "-n", "2", "/opt/pi"])))


def test_what_only_the_launcher_mounts_is_asked_about() -> None:
    manifest = mpijob(RUN)
    launcher = manifest["spec"]["mpiReplicaSpecs"]["Launcher"]["template"]["spec"]
    launcher["volumes"] = [{"name": "code", "configMap": {"name": "code"}}]
    launcher["nodeSelector"] = {"disk": "ssd"}
    document = one(manifest)
    assert "volumes of the launcher" in checks(document)
    assert "nodeSelector: is left out: there is no launcher pod" in told(document)


# --- PyTorchJob ------------------------------------------------------------------------------


def test_master_and_workers_are_one_group() -> None:
    document = one(pytorchjob(PLAIN, PLAIN))
    assert spec_of(document)["workers"] == {"replicas": 4}
    assert not checks(document)


def test_a_master_that_is_different_is_asked_about_by_field() -> None:
    master = template(["python", "train.py"], resources={"limits": {"memory": "8Gi"}})
    text = checks(one(pytorchjob(PLAIN, master)))
    assert "Master had `8Gi`, Worker `nothing` at spec.containers[0].resources.limits" in text


def test_addresses_that_were_set_by_hand_are_left_out() -> None:
    given = [{"name": "MASTER_ADDR", "value": "x"}, {"name": "WORLD_SIZE", "value": "4"}]
    document = one(pytorchjob(template(["python", "train.py"], env=given)))
    assert "pod" not in spec_of(document)
    assert "MASTER_ADDR is left out: the agents give it" in told(document)
    assert not checks(document)


GPUS = {"limits": {"nvidia.com/gpu": 4}}


@pytest.mark.parametrize(
    ("command", "resources", "nproc", "processes", "asked"),
    [
        (TORCHRUN, GPUS, None, 4, ""),
        (TORCHRUN, GPUS, "auto", 4, ""),
        (TORCHRUN, GPUS, "2", 2, "ranks of each pod: 2, GPUs: 4"),
        (["torchrun", "--nproc_per_node=4", "t.py"], GPUS, "2", 4, ""),
        (["torchrun", "--nproc_per_node=8", "t.py"], {}, None, 8, ""),
        (TORCHRUN, {}, None, 1, "auto is one rank for each CPU or GPU"),
        (["torchrun", "--nproc_per_node=$(NPROC)", "t.py"], {}, None, 3, ""),
        (["torchrun", "--nproc_per_node=$X", "t.py"], {}, None, 1, "$X ranks in each pod can't"),
        (["python", "t.py"], {}, None, 1, ""),
        (["python", "t.py"], GPUS, None, 1, "ranks of each pod: 1, GPUs: 4"),
        (["python", "t.py"], {}, "auto", 1, ""),
        (["python", "t.py"], {}, "2", 2, ""),
    ],
)
def test_ranks_of_a_pod(
    command: list[str], resources: dict[str, Any], nproc: str | None, processes: int, asked: str
) -> None:
    given = {} if nproc is None else {"nprocPerNode": nproc}
    env = [{"name": "NPROC", "value": "3"}]
    worker = template(command, resources=resources, env=env)
    document = one(pytorchjob(worker, **given), ("a100",))
    assert spec_of(document)["workers"].get("processesPerWorker", 1) == processes
    assert asked in checks(document)
    assert bool(asked) == bool(checks(document))


@pytest.mark.parametrize(
    ("spec", "command", "limit"),
    [
        ({"runPolicy": {"backoffLimit": 3}}, TORCHRUN, 3),
        ({"elasticPolicy": {"maxRestarts": 100}}, TORCHRUN, 100),
        ({"runPolicy": {"backoffLimit": 3}, "elasticPolicy": {"maxRestarts": 7}}, TORCHRUN, 7),
        ({"runPolicy": {"backoffLimit": 3}}, ["torchrun", "--max-restarts=5", "t.py"], 5),
    ],
)
def test_the_largest_limit_of_restarts_counts(
    spec: dict[str, Any], command: list[str], limit: int
) -> None:
    document = one(pytorchjob(template(command, resources=GPUS), **spec))
    assert spec_of(document)["failurePolicy"] == {"maxRestarts": limit}


@pytest.mark.parametrize(
    ("policy", "failure_policy"),
    [
        ("Never", {"maxRestarts": 0}),
        ("OnFailure", None),
        ("ExitCode", {"rules": [
            {"name": "permanent", "action": "Fail", "onExitCodes": [1, 2, 126, 127]}]}),
    ],
)  # fmt: skip
def test_restart_policies(policy: str, failure_policy: dict[str, Any] | None) -> None:
    manifest = pytorchjob(PLAIN)
    manifest["spec"]["pytorchReplicaSpecs"]["Worker"]["restartPolicy"] = policy
    assert spec_of(one(manifest)).get("failurePolicy") == failure_policy


def test_sizes_between_which_a_group_may_be() -> None:
    policy = {"minReplicas": 1, "maxReplicas": 5}
    workers = spec_of(one(pytorchjob(PLAIN, elasticPolicy=policy)))["workers"]
    assert workers == {"replicas": 3, "elastic": {"minReplicas": 1, "maxReplicas": 5}}
    torchrun = template(["torchrun", "--nnodes=2:4", "--nproc-per-node=1", "t.py"])
    workers = spec_of(one(pytorchjob(torchrun)))["workers"]
    assert workers == {"replicas": 3, "elastic": {"minReplicas": 2, "maxReplicas": 4}}


def test_a_number_of_nodes_that_is_not_that_of_the_pods_is_asked_about() -> None:
    torchrun = template(["torchrun", "--nnodes=2", "--nproc-per-node=1", "t.py"])
    assert "--nnodes was 2, with 3 pods" in checks(one(pytorchjob(torchrun)))


def test_ranks_that_a_command_reads_are_asked_about() -> None:
    script = "torchrun --nnodes=$WORLD_SIZE --node_rank=$RANK --nproc_per_node=1 t.py"
    assert not checks(one(pytorchjob(template(["sh", "-c", script]))))
    document = one(pytorchjob(template(["sh", "-c", f"{script} --node $RANK"])))
    assert "the command uses RANK" in checks(document)


def test_tools_that_start_ranks_themselves_are_asked_about() -> None:
    for command in (["accelerate", "launch", "t.py"], ["sh", "-c", "cd /a && deepspeed t.py"]):
        assert "starts ranks by itself" in checks(one(pytorchjob(template(command))))


def test_an_entry_point_of_the_image_has_to_be_written_down() -> None:
    document = one(pytorchjob(template(args=["--lr", "1"])))
    assert spec_of(document)["command"] == ["ENTRYPOINT", "--lr", "1"]
    assert "docker inspect registry.example.com/a:1" in checks(document)


# --- TrainJob --------------------------------------------------------------------------------


def test_a_trainjob_over_the_plain_runtime_needs_none() -> None:
    document = one(trainjob({"command": ["python", "t.py"]}))
    assert not checks(document)
    assert spec_of(document) == {
        "image": "registry.example.com/a:1",
        "command": ["python", "t.py"],
        "workers": {"replicas": 2},
    }


@pytest.mark.parametrize(
    ("runtime", "trainer", "asked"),
    [
        ({"name": "torch-distributed"}, {}, "has to give command"),
        ({"name": "deepspeed-distributed"}, {"command": ["python", "t.py"]}, "has to give what"),
    ],
)
def test_another_runtime_has_to_be_made(
    runtime: dict[str, str], trainer: dict[str, Any], asked: str
) -> None:
    document = one(trainjob(trainer, runtimeRef=runtime))
    expected = {"name": runtime["name"], "kind": "ClusterTrainingRuntime"}
    assert spec_of(document)["runtimeRef"] == expected
    assert asked in checks(document)


@pytest.mark.parametrize(
    "overrides",
    [
        {"podTemplateOverrides": [
            {"targetJobs": [{"name": "node"}], "spec": {"serviceAccountName": "x"}}]},
        {"podSpecOverrides": [{"targetJobs": [{"name": "node"}], "serviceAccountName": "x"}]},
        {"runtimePatches": [{"manager": "m", "trainingRuntimeSpec": {"template": {"spec": {
            "replicatedJobs": [{"name": "node", "template": {"spec": {"template": {"spec": {
                "serviceAccountName": "x"}}}}}]}}}}]},
    ],
    ids=["podTemplateOverrides", "podSpecOverrides", "runtimePatches"],
)  # fmt: skip
def test_overrides_of_all_versions_reach_the_pods(overrides: dict[str, Any]) -> None:
    document = one(trainjob({"command": ["python", "t.py"]}, **overrides))
    assert spec_of(document)["pod"] == {"serviceAccountName": "x"}
    assert not checks(document)


def test_the_old_operators_own_name_is_not_kept_and_others_are() -> None:
    ours, theirs = "trainer.kubeflow.org/trainjob-controller", "kueue.x-k8s.io/multikueue"
    trainer = {"command": ["python", "t.py"]}
    assert "managedBy" not in spec_of(one(trainjob(trainer, managedBy=ours)))
    assert spec_of(one(trainjob(trainer, managedBy=theirs)))["managedBy"] == theirs


# --- pods ------------------------------------------------------------------------------------


def test_a_volume_for_shared_memory_becomes_its_size() -> None:
    worker = template(["python", "t.py"], volumeMounts=[{"name": "m", "mountPath": "/dev/shm"}])
    worker["spec"]["volumes"] = [
        {"name": "m", "emptyDir": {"medium": "Memory", "sizeLimit": "9Gi"}}
    ]
    assert spec_of(one(pytorchjob(worker)))["pod"] == {"sharedMemory": "9Gi"}


def test_a_volume_where_headway_mounts_its_own_is_asked_about() -> None:
    worker = template(["python", "t.py"], volumeMounts=[{"name": "d", "mountPath": "/tmp/"}])
    worker["spec"]["volumes"] = [{"name": "d", "persistentVolumeClaim": {"claimName": "d"}}]
    assert "Headway mounts /tmp itself: mount d at another path" in checks(one(pytorchjob(worker)))


@pytest.mark.parametrize(
    ("resources", "gpu"),
    [
        ({"limits": {"nvidia.com/gpu": "2"}}, {"pools": ["a100"], "perWorker": 2}),
        ({"requests": {"amd.com/gpu": 1}}, {"pools": ["a100"], "perWorker": 1}),
        ({"limits": {"nvidia.com/gpu": 0}}, None),
        ({"limits": {"rdma/hca": 1}}, None),
    ],
)
def test_gpus_come_from_pools(resources: dict[str, Any], gpu: dict[str, Any] | None) -> None:
    document = one(pytorchjob(template(TORCHRUN, resources=resources)), ("a100",))
    spec = spec_of(document)
    assert spec.get("gpu") == gpu
    assert "gpu" not in str(spec["workers"])


@pytest.mark.parametrize(
    ("context", "asked"),
    [
        ({"privileged": True}, "securityContext.privileged can't be set"),
        ({"capabilities": {"add": ["IPC_LOCK"]}}, "securityContext.capabilities can't be set"),
        ({"runAsUser": 0}, "user 0 is root"),
        ({"runAsUser": 1000, "allowPrivilegeEscalation": False}, ""),
    ],
)
def test_privileges_are_not_carried_over(context: dict[str, Any], asked: str) -> None:
    document = one(pytorchjob(template(["python", "t.py"], securityContext=context)))
    assert asked in checks(document)
    assert bool(asked) == bool(checks(document))


@pytest.mark.parametrize(
    ("name", "asked"), [("HEADWAY_X", True), ("LOCAL_RANK", False), ("PET_NNODES", False)]
)
def test_variables_that_are_not_the_jobs_to_set(name: str, asked: bool) -> None:
    given = [{"name": name, "value": "1"}, {"name": "OTHER", "value": 5}]
    document = one(pytorchjob(template(["python", "t.py"], env=given)))
    assert env(document) == {"OTHER": "5"}
    assert bool(checks(document)) == asked


def test_a_manifest_from_the_cluster_loses_what_the_server_wrote() -> None:
    manifest = pytorchjob(PLAIN)
    manifest["metadata"] |= {"uid": "1", "resourceVersion": "2", "generation": 3}
    manifest["status"] = {"conditions": [{"type": "Running"}]}
    document = one(manifest)
    assert "uid" not in document.text
    assert "status" not in document.text
    assert not checks(document)


def test_a_name_that_the_api_server_would_refuse_is_asked_about() -> None:
    manifest = pytorchjob(PLAIN)
    manifest["metadata"]["name"] = "x" * 60
    assert "at most 52 characters" in checks(one(manifest))


def test_an_init_container_and_a_sidecar_are_asked_about() -> None:
    worker = template(["python", "t.py"])
    worker["spec"]["initContainers"] = [{"name": "wait", "image": "b"}]
    worker["spec"]["containers"].append({"name": "logs", "image": "c"})
    text = checks(one(mpijob(RUN, worker)))
    assert f"{WORKER}.initContainers:" in text
    assert f"{WORKER}.containers[1]:" in text
