"""The CRDs on a real API server, and the same manifests refused without one.

Each wrong manifest runs through `headway_api.validation` and through `kubectl`: both have to
refuse it with the same words.
"""

import copy
import json
import os
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import wrong_sweeps

from apiserver import ApiServer, missing_binaries
from headway_api import validation
from headway_api.contract import API_VERSION
from headway_api.crd import crd, object_schema
from headway_api.kinds import KINDS, SWEEP, TRAINING_JOB, Kind
from headway_api.trainingjob import (
    BestCheckpoint,
    CheckpointStatus,
    LastRestart,
    LeadRestarts,
    ProgressStatus,
    Restarts,
    TrainingJobStatus,
    WorkerCounts,
)
from headway_api.validation import ValidationError, admit

CRDS = Path(__file__).parents[2] / "crds"
Object = dict[str, Any]
BY_KIND = {kind.kind: kind for kind in KINDS}
BASES: dict[str, Object] = {
    "TrainingJob": {"image": "trainer:1", "command": ["python", "train.py"]},
    "Sweep": {
        "parameters": [{"name": "lr", "float": {"min": 1e-4, "max": 0.1, "log": True}}],
        "objectives": [{"metric": "loss"}],
        "maxTrials": 10,
        "template": {"spec": {"image": "trainer:1", "command": ["train", "${params.lr}"]}},
    },
}
"""A spec that is right, by kind."""


def job(spec: Object | None = None, *, kind: str = "TrainingJob", name: str = "") -> Object:
    """A manifest whose spec is laid over one that is right (RFC 7386: null removes)."""
    merged = merge(BASES.get(kind, {}), spec or {})
    return {"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name}, "spec": merged}


def merge(base: Object, patch: Object) -> Object:
    result = copy.deepcopy(base)
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif isinstance(value, dict) and isinstance(result.get(key), dict):
            result[key] = merge(result[key], value)
        else:
            result[key] = value
    return result


@dataclass(frozen=True)
class Wrong:
    """A manifest that has to be refused.

    Attributes:
        name: what is wrong, also the object's name.
        spec: laid over a spec that is right.
        says: what both the API server and the offline check answer.
        old: spec of the object that it would replace.
    """

    name: str
    spec: Object
    says: str
    old: Object | None = None
    kind: str = "TrainingJob"
    object_name: str = ""
    extra: Object = field(default_factory=dict)

    def manifest(self) -> Object:
        made = job(self.spec, kind=self.kind, name=self.object_name or self.name)
        return merge(made, self.extra)


STORED: Object = {"storage": {"uri": "s3://bucket/a"}}


def body(path: str, value: str, rest: str) -> str:
    return f"spec.{path}: Invalid value: {value}: spec.{path} in body should {rest}"


WRONG = [
    # fields
    Wrong(
        "unknown-framework",
        {"framework": "Tensorflow"},
        'spec.framework: Unsupported value: "Tensorflow": supported values: "PyTorch", "Horovod"',
    ),
    Wrong(
        "zero-replicas",
        {"workers": {"replicas": 0}},
        body("workers.replicas", "0", "be greater than or equal to 1"),
    ),
    Wrong(
        "too-many-processes",
        {"workers": {"processesPerWorker": 65}},
        body("workers.processesPerWorker", "65", "be less than or equal to 64"),
    ),
    Wrong(
        "replicas-in-words",
        {"workers": {"replicas": "two"}},
        'spec.workers.replicas in body must be of type integer: "string"',
    ),
    Wrong(
        "replicas-true",
        {"workers": {"replicas": True}},
        'spec.workers.replicas in body must be of type integer: "boolean"',
    ),
    Wrong(
        "suspend-yes", {"suspend": "yes"}, 'spec.suspend in body must be of type boolean: "string"'
    ),
    Wrong(
        "negative-deadline",
        {"activeDeadlineSeconds": -1},
        body("activeDeadlineSeconds", "-1", "be greater than or equal to 1"),
    ),
    Wrong(
        "negative-ttl",
        {"ttlSecondsAfterFinished": -1},
        body("ttlSecondsAfterFinished", "-1", "be greater than or equal to 0"),
    ),
    Wrong(
        "quantity-in-words",
        {"workers": {"resources": {"requests": {"cpu": "lots"}}}},
        body("workers.resources.requests.cpu", '"lots"', "match '^[0-9]+"),
    ),
    Wrong(
        "negative-quantity",
        {"workers": {"resources": {"limits": {"memory": -1}}}},
        body("workers.resources.limits.memory", "-1", "be greater than or equal to 0"),
    ),
    Wrong(
        "negative-quantity-text",
        {"pod": {"sharedMemory": "-1Gi"}},
        body("pod.sharedMemory", '"-1Gi"', "match '^[0-9]+"),
    ),
    Wrong(
        "float-quantity",
        {"workers": {"resources": {"requests": {"cpu": 0.5}}}},
        'spec.workers.resources.requests.cpu in body must be of type integer,string: "number"',
    ),
    Wrong(
        "number-parameter",
        {"parameters": {"lr": 0.1}},
        'spec.parameters.lr in body must be of type string: "number"',
    ),
    Wrong("empty-image", {"image": ""}, body("image", '""', "be at least 1 chars long")),
    Wrong(
        "long-image", {"image": "i" * 513}, "spec.image: Too long: may not be more than 512 bytes"
    ),
    Wrong("empty-command", {"command": []}, body("command", "0", "have at least 1 items")),
    Wrong(
        "command-as-text",
        {"command": "python train.py"},
        'spec.command in body must be of type array: "string"',
    ),
    Wrong("storage-without-uri", {"storage": {}}, "spec.storage.uri: Required value"),
    Wrong(
        "bad-uri",
        {"storage": {"uri": "http://bucket/a"}},
        body("storage.uri", '"http://bucket/a"', "match '^((s3|gs|az|abfs|file)://.+|/.*)$'"),
    ),
    Wrong(
        "too-many-parameters",
        {"parameters": {f"p{i}": "x" for i in range(129)}},
        "spec.parameters: Too many: 129: must have at most 128 items",
    ),
    Wrong(
        "too-many-rules",
        {
            "failurePolicy": {
                "rules": [
                    {"name": f"r{i}", "action": "Fail", "onExitCodes": [3]} for i in range(33)
                ]
            }
        },
        "spec.failurePolicy.rules: Too many: 33: must have at most 32 items",
    ),
    Wrong(
        "rules-of-one-name",
        {
            "failurePolicy": {
                "rules": [
                    {"name": "a", "action": "Fail", "onExitCodes": [3]},
                    {"name": "a", "action": "Restart", "onReasons": ["Evicted"]},
                ]
            }
        },
        'spec.failurePolicy.rules[1]: Duplicate value: {"name":"a"}',
    ),
    Wrong(
        "exit-code-twice",
        {"failurePolicy": {"rules": [{"name": "a", "action": "Fail", "onExitCodes": [3, 3]}]}},
        "spec.failurePolicy.rules[0].onExitCodes[1]: Duplicate value: 3",
    ),
    Wrong(
        "exit-code-300",
        {"failurePolicy": {"rules": [{"name": "a", "action": "Fail", "onExitCodes": [300]}]}},
        body("failurePolicy.rules[0].onExitCodes[0]", "300", "be less than or equal to 255"),
    ),
    Wrong(
        "rule-without-action",
        {"failurePolicy": {"rules": [{"name": "a", "onExitCodes": [3]}]}},
        "spec.failurePolicy.rules[0].action: Required value",
    ),
    Wrong("no-pools", {"gpu": {"pools": []}}, body("gpu.pools", "0", "have at least 1 items")),
    # unknown fields
    Wrong("unknown-in-spec", {"comand": ["x"]}, 'unknown field "spec.comand"'),
    Wrong("unknown-below", {"workers": {"replica": 3}}, 'unknown field "spec.workers.replica"'),
    Wrong("unknown-at-top", {}, 'unknown field "sepc"', extra={"sepc": {}}),
    Wrong(
        "unknown-in-list",
        {"pod": {"env": [{"name": "A", "vale": "x"}]}},
        'unknown field "spec.pod.env[0].vale"',
    ),
    # rules
    Wrong(
        "long-name",
        {},
        "metadata.name: Invalid value: must have at most 52 characters: names of its pods",
        object_name="j" * 53,
    ),
    Wrong(
        "name-begins-with-a-digit",
        {},
        "metadata.name: Invalid value: must be lower case letters, digits and '-', and begin with",
        object_name="1-job",
    ),
    Wrong(
        "name-with-a-dot",
        {},
        "metadata.name: Invalid value: must be lower case letters, digits and '-', and begin with",
        object_name="job.one",
    ),
    Wrong(
        "no-image",
        {"image": None},
        "spec.image: Invalid value: set image, or runtimeRef to a runtime that gives one",
    ),
    Wrong(
        "no-command",
        {"command": None},
        "spec.command: Invalid value: set command, e.g. [python, train.py], or runtimeRef",
    ),
    Wrong(
        "checkpoint-without-storage",
        {"checkpoint": {"everySteps": 5}},
        "spec.storage.uri: Invalid value: checkpoint needs storage.uri",
    ),
    Wrong(
        "model-without-storage",
        {"model": {"name": "digits"}},
        "spec.storage.uri: Invalid value: model needs storage.uri",
    ),
    Wrong(
        "pause-without-storage",
        {"pauseAtStep": 5},
        "spec.storage.uri: Invalid value: pauseAtStep needs storage.uri",
    ),
    Wrong(
        "pause-before-the-first-step",
        {"pauseAtStep": 0, "storage": {"uri": "s3://b"}},
        body("pauseAtStep", "0", "be greater than or equal to 1"),
    ),
    Wrong(
        "too-many-observed",
        {"observe": {"metrics": [str(number) for number in range(9)]}},
        "spec.observe.metrics: Too many: 9: must have at most 8 items",
    ),
    Wrong(
        "observed-twice",
        {"observe": {"metrics": ["loss", "loss"]}},
        'spec.observe.metrics[1]: Duplicate value: "loss"',
    ),
    Wrong(
        "horovod-for-pytorch",
        {"horovod": {"timeoutSeconds": 60}},
        "spec.horovod: Invalid value: horovod is for framework: Horovod: set that, or remove",
    ),
    Wrong(
        "timeline-without-storage",
        {"framework": "Horovod", "horovod": {"timeline": {}}},
        "spec.storage.uri: Invalid value: horovod.timeline and horovod.autotune.log need storage",
    ),
    Wrong(
        "tuning-log-without-storage",
        {"framework": "Horovod", "horovod": {"autotune": {"log": True}}},
        "spec.storage.uri: Invalid value: horovod.timeline and horovod.autotune.log need storage",
    ),
    Wrong(
        "abort-before-horovods-own-warning",
        {"framework": "Horovod", "horovod": {"stallCheck": {"abortAfterSeconds": 59}}},
        "spec.horovod.stallCheck.abortAfterSeconds: Invalid value: abortAfterSeconds must not be",
    ),
    Wrong(
        "abort-before-warning",
        {
            "framework": "Horovod",
            "horovod": {"stallCheck": {"warnAfterSeconds": 90, "abortAfterSeconds": 60}},
        },
        "spec.horovod.stallCheck.abortAfterSeconds: Invalid value: abortAfterSeconds must not be",
    ),
    Wrong(
        "cycle-time-with-a-unit",
        {"framework": "Horovod", "horovod": {"fusion": {"cycleTimeMilliseconds": "5ms"}}},
        body("horovod.fusion.cycleTimeMilliseconds", '"5ms"', "match '^[0-9]{1,7}"),
    ),
    Wrong(
        "elastic-min-above-max",
        {"workers": {"replicas": 3, "elastic": {"minReplicas": 5, "maxReplicas": 2}}},
        "spec.workers.elastic.minReplicas: Invalid value: "
        "minReplicas must not be larger than maxReplicas",
    ),
    Wrong(
        "replicas-below-elastic",
        {"workers": {"elastic": {"minReplicas": 2, "maxReplicas": 4}}},
        "spec.workers.replicas: Invalid value: replicas must lie between elastic.minReplicas",
    ),
    Wrong(
        "replicas-above-elastic",
        {"workers": {"replicas": 5, "elastic": {"minReplicas": 2, "maxReplicas": 4}}},
        "spec.workers.replicas: Invalid value: replicas must lie between elastic.minReplicas",
    ),
    Wrong(
        "rule-without-criterion",
        {"failurePolicy": {"rules": [{"name": "a", "action": "Fail"}]}},
        "spec.failurePolicy.rules[0]: Invalid value: a failure rule needs onExitCodes or onReasons",
    ),
    Wrong(
        "reserved-label",
        {"pod": {"labels": {"headway.dev/job-name": "other"}}},
        "spec.pod.labels: Invalid value: labels that begin with headway.dev/ are Headway's own",
    ),
    Wrong(
        "reserved-variable",
        {"pod": {"env": [{"name": "HEADWAY_JOB_UID", "value": "x"}]}},
        "spec.pod.env[0].name: Invalid value: names that begin with HEADWAY_ are Headway's own",
    ),
    Wrong(
        "variable-of-two-values",
        {"pod": {"env": [{"name": "A", "value": "x", "valueFrom": {"fieldRef": {}}}]}},
        "spec.pod.env[0]: Invalid value: set value or valueFrom, not both",
    ),
    Wrong(
        "runtime-with-reserved-label",
        {"pod": {"labels": {"headway.dev/role": "lead"}}},
        "spec.pod.labels: Invalid value: labels that begin with headway.dev/ are Headway's own",
        kind="TrainingRuntime",
    ),
    # changes
    Wrong(
        "framework-changed",
        {"framework": "Horovod"},
        'spec.framework: Invalid value: "Horovod": framework can\'t change',
        old={},
    ),
    Wrong(
        "uri-changed",
        {"storage": {"uri": "s3://bucket/b"}},
        "spec.storage.uri: Invalid value: storage.uri can't change: the checkpoints are there",
        old=STORED,
    ),
    Wrong(
        "uri-changed-while-suspended",
        {"suspend": True, "storage": {"uri": "s3://bucket/b"}},
        "spec.storage.uri: Invalid value: storage.uri can't change: the checkpoints are there",
        old={"suspend": True, **STORED},
    ),
    Wrong("storage-added", STORED, "spec.storage.uri: Invalid value: storage.uri can't", old={}),
    Wrong("storage-removed", {}, "spec.storage.uri: Invalid value: storage.uri can't", old=STORED),
    Wrong(
        "runtime-added",
        {"runtimeRef": {"name": "a"}},
        "spec.runtimeRef: Invalid value: runtimeRef can't change: it is read once",
        old={},
    ),
    Wrong(
        "runtime-changed",
        {"runtimeRef": {"name": "b"}},
        "spec.runtimeRef: Invalid value: runtimeRef can't change: it is read once",
        old={"runtimeRef": {"name": "a"}},
    ),
    Wrong(
        "manager-added",
        {"managedBy": "kueue.x-k8s.io/multikueue"},
        "spec.managedBy: Invalid value: managedBy can't change",
        old={},
    ),
    Wrong(
        "manager-changed",
        {"managedBy": "other"},
        'spec.managedBy: Invalid value: "other": managedBy can\'t change',
        old={"managedBy": "one"},
    ),
    Wrong(
        "replicas-changed-while-running",
        {"workers": {"replicas": 2}},
        "spec.workers.replicas: Invalid value: workers.replicas can change only while",
        old={},
    ),
    *(
        Wrong(
            f"{name}-changed-while-running",
            spec,
            "spec: Invalid value: image, command, parameters and processesPerWorker can change only"
            " while suspended: set suspend: true first",
            old={},
        )
        for name, spec in {
            "image": {"image": "trainer:2"},
            "command": {"command": ["python", "other.py"]},
            "parameters": {"parameters": {"lr": "0.1"}},
            "processes": {"workers": {"processesPerWorker": 2}},
        }.items()
    ),
]

WRONG += [
    Wrong(f"sweep-{name}", spec, says, old=old, kind="Sweep")
    for name, (spec, says, old) in wrong_sweeps.TABLE.items()
]
WRONG += [
    Wrong(name, {}, says, kind="Sweep", object_name=given)
    for name, given, says in (
        ("sweep-long-name", "s" * 43, "must have at most 42 characters"),
        ("sweep-name-that-begins-with-a-digit", "1sweep", "and begin with a letter"),
    )
]

FULL: Object = {
    "framework": "Horovod",
    "runtimeRef": {"name": "torch-gpu"},
    "parameters": {"lr": "0.1"},
    "workers": {
        "replicas": 4,
        "processesPerWorker": 8,
        "elastic": {"minReplicas": 2, "maxReplicas": 8},
        "resources": {
            "requests": {"cpu": 4, "memory": "16Gi", "ephemeral-storage": "1e9"},
            "limits": {"cpu": "500m", "memory": "1.5Gi"},
        },
    },
    "gpu": {"pools": ["a100-spot", "a100"], "perWorker": 8},
    "pod": {
        "labels": {"team": "vision"},
        "annotations": {"note": "x"},
        "env": [
            {"name": "A", "value": "1"},
            {"name": "B", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}},
        ],
        "envFrom": [{"configMapRef": {"name": "c"}}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        "volumeMounts": [{"name": "data", "mountPath": "/data"}],
        "tolerations": [{"key": "gpu", "operator": "Exists", "effect": "NoSchedule"}],
        "affinity": {"nodeAffinity": {"whatever": [{"deep": 1}]}},
        "imagePullSecrets": [{"name": "pull"}],
        "sharedMemory": "2Gi",
        "terminationGracePeriodSeconds": 120,
    },
    "storage": {
        "uri": "s3://bucket/prefix",
        "endpoint": "http://s3.local:9000",
        "secretRef": {"name": "s3"},
    },
    "checkpoint": {
        "everySteps": 500,
        "keepBest": {"metric": "val_loss"},
        "resumeFrom": "s3://bucket/other-12345678",
    },
    "failurePolicy": {
        "maxRestarts": 0,
        "rules": [
            {"name": "oom", "action": "Fail", "onExitCodes": [137], "onReasons": ["OOMKilled"]}
        ],
    },
    "scheduling": {"queueName": "q", "priorityClassName": "high", "startTimeoutSeconds": 600},
    "model": {"name": "digits", "from": "Best"},
    "network": {"service": True},
    "horovod": {
        "stallCheck": {"warnAfterSeconds": 30, "abortAfterSeconds": 30},
        "fusion": {"thresholdBytes": 0, "cycleTimeMilliseconds": "3.5"},
        "autotune": {"warmupSamples": 0, "stepsPerSample": 5, "maxSamples": 9, "log": True},
        "timeline": {"markCycles": True},
        "timeoutSeconds": 60,
    },
    "activeDeadlineSeconds": 3600,
    "ttlSecondsAfterFinished": 0,
    "managedBy": "headway.dev/operator",
}

# What may change, and when: old spec, new spec.
ALLOWED: dict[str, tuple[Object, Object]] = {
    "suspend": ({}, {"suspend": True}),
    "edit-while-suspended": (
        {"suspend": True},
        {
            "suspend": True,
            "image": "trainer:2",
            "parameters": {"lr": "1"},
            "workers": {"replicas": 3},
        },
    ),
    "edit-with-the-suspension": ({}, {"suspend": True, "command": ["other"]}),
    "edit-with-the-resumption": ({"suspend": True}, {"image": "trainer:2"}),
    "grow-an-elastic-job": (
        {"workers": {"replicas": 2, "elastic": {"minReplicas": 1, "maxReplicas": 4}}},
        {"workers": {"replicas": 4, "elastic": {"minReplicas": 1, "maxReplicas": 4}}},
    ),
    "other-deadline": ({**STORED}, {**STORED, "activeDeadlineSeconds": 7}),
}

STATUS = TrainingJobStatus(
    observed_generation=1,
    phase="Running",
    start_time="2026-01-02T03:04:05Z",
    workers=WorkerCounts(desired=2, ready=2, active=2),
    ready="2/2",
    restarts=Restarts(
        total=2,
        counted=1,
        last=LastRestart(time="2026-01-02T03:04:05Z", reason="Error", worker=1, exit_code=1),
        lead=LeadRestarts(session="abc", total=1, counted=1),
        handled_pods=["uid-1", "uid-2"],
    ),
    progress=ProgressStatus(step=5, percent=50, metrics={"loss": "0.12"}),
    checkpoint=CheckpointStatus(
        step=5, best=BestCheckpoint(step=4, uri="s3://b/c", metric="loss", value="0.1")
    ),
    runtime={"image": "trainer:1", "pod": {"affinity": {"deep": [1]}}},
)


class Offline:
    """The check that local mode uses."""

    def stored(self, new: Object, old: Object | None = None) -> Object:
        kind: Kind = BY_KIND[new["kind"]]
        return admit(kind, new, None if old is None else admit(kind, old))

    def refusal(self, new: Object, old: Object | None = None) -> str:
        try:
            self.stored(new, old)
        except ValidationError as error:
            return str(error)
        return ""

    def status(self, manifest: Object, status: Object) -> Object:
        stored = self.stored(manifest)
        return admit(TRAINING_JOB, {**stored, "status": status}, stored)


class RefusedError(Exception):
    """kubectl failed; the text has what it wrote to stderr."""


class Kubectl:
    """`kubectl` against a real API server."""

    def __init__(self, server: ApiServer) -> None:
        path = os.pathsep.join(
            filter(None, (os.environ.get("HEADWAY_KUBE_BIN"), os.environ["PATH"]))
        )
        self._env = {**os.environ, "PATH": path, "KUBECONFIG": str(server.kubeconfig)}

    def __call__(self, *arguments: str, stdin: Object | None = None, check: bool = True) -> str:
        done = subprocess.run(
            ["kubectl", *arguments],
            env=self._env,
            input=None if stdin is None else json.dumps(stdin),
            capture_output=True,
            text=True,
            check=False,
            timeout=60,
        )
        if check and done.returncode != 0:
            raise RefusedError(f"kubectl {' '.join(arguments)}: {done.stderr}")
        return done.stdout if check else done.stderr

    def _write(self, new: Object, old: Object | None, *, check: bool) -> str:
        if old is not None:
            self("create", "-f", "-", stdin=old)
        verb = "create" if old is None else "replace"
        flags = ("-f", "-", "--dry-run=server", "-o", "json")
        return self(verb, *flags, stdin=new, check=check)

    def stored(self, new: Object, old: Object | None = None) -> Object:
        stored: Object = json.loads(self._write(new, old, check=True))
        return stored

    def refusal(self, new: Object, old: Object | None = None) -> str:
        return self._write(new, old, check=False)

    def status(self, manifest: Object, status: Object) -> Object:
        self("create", "-f", "-", stdin=manifest)
        patch = json.dumps({"status": status})
        target = ("trainingjob", manifest["metadata"]["name"])
        written = self(
            "patch", *target, "--subresource=status", "--type=merge", "-p", patch, "-o", "json"
        )
        stored: Object = json.loads(written)
        return stored


@pytest.fixture(scope="session")
def kubectl(request: pytest.FixtureRequest) -> Kubectl:
    """kubectl, with our CRDs installed by plain client-side `kubectl apply`."""
    if missing_binaries("kubectl"):
        pytest.skip("not on PATH or in HEADWAY_KUBE_BIN: kubectl")
    tool = Kubectl(request.getfixturevalue("api"))
    for path in sorted(CRDS.glob("*.yaml")):
        tool("apply", "-f", str(path))
    tool("wait", "--for=condition=Established", "--timeout=60s", "crd", *crd_names())
    return tool


def crd_names() -> list[str]:
    return [crd(kind)["metadata"]["name"] for kind in KINDS]


@pytest.fixture(params=["offline", pytest.param("apiserver", marks=pytest.mark.apiserver)])
def judge(request: pytest.FixtureRequest) -> Offline | Kubectl:
    if request.param == "offline":
        return Offline()
    tool: Kubectl = request.getfixturevalue("kubectl")
    return tool


@pytest.mark.parametrize("wrong", WRONG, ids=lambda wrong: wrong.name)
def test_a_wrong_manifest_is_refused_with_a_sentence(
    wrong: Wrong, judge: Offline | Kubectl
) -> None:
    old = None if wrong.old is None else job(wrong.old, kind=wrong.kind, name=wrong.name)
    assert wrong.says in judge.refusal(wrong.manifest(), old)


@pytest.mark.parametrize("kind", [TRAINING_JOB, SWEEP], ids=lambda kind: kind.kind)
def test_without_any_one_rule_some_wrong_manifest_would_pass(
    kind: Kind, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Guards the table above: no rule in it that nothing tries."""
    whole = object_schema(kind)
    changed = [wrong for wrong in WRONG if wrong.kind == kind.kind and "in body" not in wrong.says]
    for holder, rule in rules(whole):
        holder["x-kubernetes-validations"].remove(rule)
        with monkeypatch.context() as patch:
            patch.setattr(validation, "object_schema", lambda _: copy.deepcopy(whole))
            validation._schema.cache_clear()
            assert any(wrong.says not in refusal(wrong) for wrong in changed), rule
        holder["x-kubernetes-validations"].append(rule)
    validation._schema.cache_clear()


def refusal(wrong: Wrong) -> str:
    old = None if wrong.old is None else job(wrong.old, kind=wrong.kind, name=wrong.name)
    return Offline().refusal(wrong.manifest(), old)


def rules(node: object) -> Iterator[tuple[Object, Object]]:
    """Every rule below a schema, and what it stands in."""
    children = node.values() if isinstance(node, dict) else node if isinstance(node, list) else ()
    for item in list(children):
        yield from rules(item)
    if isinstance(node, dict):
        yield from ((node, rule) for rule in list(node.get("x-kubernetes-validations", ())))


@pytest.mark.parametrize("spec", [{}, FULL], ids=["least", "full"])
def test_a_right_manifest_is_stored_with_the_same_defaults(
    spec: Object, request: pytest.FixtureRequest, judge: Offline | Kubectl
) -> None:
    manifest = job(spec, name=request.node.callspec.id.split("-")[0] + "-right")
    stored = judge.stored(manifest)
    assert stored["spec"] == Offline().stored(manifest)["spec"]
    assert stored["spec"] == merge(stored["spec"], manifest["spec"])
    assert stored["spec"]["workers"]["processesPerWorker"] == (8 if spec else 1)
    assert stored["spec"]["framework"] == ("Horovod" if spec else "PyTorch")


def test_nulls_count_as_left_out(judge: Offline | Kubectl) -> None:
    manifest = job(name="nulls")
    manifest["spec"] |= {"framework": None, "gpu": None, "workers": None}
    stored = judge.stored(manifest)["spec"]
    assert stored == Offline().stored(job(name="nulls"))["spec"]


@pytest.mark.parametrize("name", ALLOWED)
def test_an_allowed_change_is_stored(name: str, judge: Offline | Kubectl) -> None:
    old, new = (job(spec, name=f"may-{name}") for spec in ALLOWED[name])
    assert judge.stored(new, old)["spec"] == Offline().stored(new)["spec"]


def test_the_longest_legal_name_is_stored(judge: Offline | Kubectl) -> None:
    assert judge.stored(job(name="j" * 52))


def test_the_operator_s_whole_status_is_stored_as_it_is(judge: Offline | Kubectl) -> None:
    status = STATUS.wire()
    assert judge.status(job(name="status"), status)["status"] == status


@pytest.mark.parametrize(
    ("patch", "says"),
    [
        (
            {"phase": "Happy"},
            'status.phase: Unsupported value: "Happy": supported values: "Pending"',
        ),
        (
            {"startTime": "yesterday"},
            'startTime in body must be of type date-time: "yesterday"',
        ),
    ],
    ids=["phase", "time"],
)
def test_a_wrong_status_is_refused(
    patch: Object, says: str, judge: Offline | Kubectl, request: pytest.FixtureRequest
) -> None:
    name = f"bad-{request.node.callspec.id}"
    with pytest.raises((RefusedError, ValidationError)) as caught:
        judge.status(job(name=name), patch)
    assert says in str(caught.value)


@pytest.mark.apiserver
def test_the_crds_are_structural_and_applying_again_changes_nothing(kubectl: Kubectl) -> None:
    for path in sorted(CRDS.glob("*.yaml")):
        assert kubectl("apply", "-f", str(path)).strip().endswith("unchanged")
    listed = json.loads(kubectl("get", "crd", *crd_names(), "-o", "json"))
    for item in listed["items"]:
        conditions = {entry["type"]: entry["status"] for entry in item["status"]["conditions"]}
        assert conditions["Established"] == "True"
        assert conditions.get("NonStructuralSchema", "False") == "False"


@pytest.mark.apiserver
def test_the_api_server_keeps_every_key_that_we_generate(kubectl: Kubectl) -> None:
    for kind in KINDS:
        made = crd(kind)
        stored = json.loads(kubectl("get", "crd", made["metadata"]["name"], "-o", "json"))
        for key in ("schema", "additionalPrinterColumns", "subresources"):
            ours = made["spec"]["versions"][0].get(key)
            assert stored["spec"]["versions"][0].get(key) == ours, (kind.kind, key)


@pytest.mark.apiserver
@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_kubectl_explain_has_a_sentence_for_every_field(kind: Kind, kubectl: Kubectl) -> None:
    recursive = kubectl("explain", kind.plural, "--recursive")
    assert recursive.count("\n") > 40  # metadata alone has about as many
    parts = ["spec", "status"] if kind.status else ["spec"]
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]
    for part in parts:
        told = " ".join(kubectl("explain", f"{kind.plural}.{part}").split())
        for name, child in schema[part]["properties"].items():
            assert f"{name} <" in told
            assert child["description"] in told
    workers = " ".join(kubectl("explain", "trainingjob.spec.workers.elastic.minReplicas").split())
    assert "Fewest pods with which training goes on." in workers


@pytest.mark.apiserver
def test_kubectl_get_shows_the_columns_and_the_category_has_all_kinds(kubectl: Kubectl) -> None:
    kubectl("create", "-f", "-", stdin=job(name="columns"))
    kubectl("create", "-f", "-", stdin=job({"image": "i:1"}, kind="TrainingRuntime", name="base"))
    patch = json.dumps({"status": STATUS.wire()})
    kubectl("patch", "tj", "columns", "--subresource=status", "--type=merge", "-p", patch)
    header, line = kubectl("get", "tj", "columns").splitlines()
    assert header.split() == ["NAME", "PHASE", "READY", "RESTARTS", "STEP", "PROGRESS", "AGE"]
    assert line.split()[:6] == ["columns", "Running", "2/2", "2", "5", "50"]
    found = kubectl("get", "headway", "-o", "name").split()
    assert "trainingjob.headway.dev/columns" in found
    assert "trainingruntime.headway.dev/base" in found
