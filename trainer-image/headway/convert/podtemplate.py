"""From a pod template to what a TrainingJob may set on its pods (`spec.pod`)."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from headway.convert import environment, quantities, volumes
from headway.convert.fields import ConvertError, Fields
from headway.convert.job import Job

_POD_FIELDS: tuple[tuple[str, type], ...] = (
    ("imagePullSecrets", list),
    ("serviceAccountName", str),
    ("nodeSelector", dict),
    ("tolerations", list),
    ("affinity", dict),
    ("topologySpreadConstraints", list),
    ("securityContext", dict),
    ("runtimeClassName", str),
    ("schedulerName", str),
    ("terminationGracePeriodSeconds", int),
)
_CONTAINER_FIELDS: tuple[tuple[str, type], ...] = (
    ("envFrom", list),
    ("workingDir", str),
    ("imagePullPolicy", str),
)
_OF_BOTH = ("runAsUser", "runAsGroup", "runAsNonRoot", "seLinuxOptions", "seccompProfile")
"""What a container's security context shares with a pod's."""
_DEFAULTS: dict[str, tuple[Any, ...]] = {
    "restartPolicy": ("Never", "OnFailure", "Always"),
    "dnsPolicy": ("ClusterFirst",),
    "schedulerName": ("default-scheduler",),
    "enableServiceLinks": (False,),
    "automountServiceAccountToken": (False,),
    "terminationMessagePath": ("/dev/termination-log",),
    "terminationMessagePolicy": ("File", "FallbackToLogsOnError"),
    "stdin": (False, True),
    "tty": (False, True),
}
"""Values that change nothing, or are Headway's business."""


@dataclass
class Template:
    """What was found in a pod template.

    Attributes:
        path: Where the container is in the input.
        image: Its image.
        command: Its entry point; None where the image's is used.
        args: Arguments of that.
        pod: Settings for `spec.pod`.
        resources: For `workers.resources`.
        gpus: GPUs of each pod.
        resources_path: Where those were, if not in the container.
        priority_class: Priority class of the pods.
    """

    path: str
    image: str | None = None
    command: list[str] | None = None
    args: list[str] = field(default_factory=list)
    pod: dict[str, Any] = field(default_factory=dict)
    resources: dict[str, Any] = field(default_factory=dict)
    gpus: int = 0
    resources_path: str = ""
    priority_class: str | None = None


def read(template: Fields, container: str, job: Job) -> Template:
    """Takes all of a pod template, and tells of what has no place in a TrainingJob.

    Args:
        template: With `metadata` and `spec`.
        container: Name of the one that trains, where there are several.
        job: Is told.

    Raises:
        ConvertError: there is no container.
    """
    spec = template.inner("spec")
    main = trainer(spec, container)
    found = overlay(template, main, job)
    for other in spec.items("containers"):
        if other is not main and any(other.left()):
            job.ask(other.path, f"a pod of a TrainingJob has one container: {_ELSE}", "spec.pod")
            other.drop()
    return found


def trainer(spec: Fields, name: str) -> Fields:
    """The container that trains: the one of that name, or the first.

    Raises:
        ConvertError: there is none.
    """
    containers = spec.items("containers")
    if not containers:
        raise ConvertError(f"{spec.path} has no containers: one of them has to be the trainer")
    named = [each for each in containers if each.raw().get("name") == name]
    return (named or containers)[0]


def overlay(template: Fields, main: Fields, job: Job) -> Template:
    """The same for a template that may lack a container's parts, as an override does."""
    spec = template.inner("spec")
    found = Template(main.path)
    main.take("name", str)
    found.image = main.take("image", str)
    found.command = main.texts("command") if "command" in main else None
    found.args = main.texts("args")
    found.resources, found.gpus = quantities.convert(main.inner("resources"), job)
    found.priority_class = spec.take("priorityClassName", str)
    found.pod = _metadata(template.inner("metadata"), job)
    env = environment.convert(main.named("env"), main.at("env"), job)
    _defaults(spec, job)
    _defaults(main, job)
    given: dict[str, Any] = {name: main.take(name, kind) for name, kind in _CONTAINER_FIELDS}
    given |= {name: spec.take(name, kind) for name, kind in _POD_FIELDS}
    legacy = spec.take("serviceAccount", str)
    given["serviceAccountName"] = given["serviceAccountName"] or legacy
    given["securityContext"] = _security(
        given["securityContext"], main.inner("securityContext"), job
    )
    found.pod |= {"env": env, **given, **volumes.convert(spec, main, job)}
    found.pod = {name: value for name, value in found.pod.items() if value not in (None, {}, [])}
    _tell_rest(spec, main, job)
    return found


def _metadata(source: Fields, job: Job) -> dict[str, Any]:
    found = {name: source.take(name, dict) for name in ("labels", "annotations")}
    for path, _ in list(source.left()):
        job.say(path, "pods get their names from their job")
    source.drop()
    return found


def _defaults(source: Fields, job: Job) -> None:
    given = source.raw()
    for name, usual in _DEFAULTS.items():
        if name in given and given[name] in usual:
            source.take_any(name)
            job.say(source.at(name), _WHY.get(name, "is so, or without meaning, in Headway"))


_WHY = {
    "restartPolicy": "the whole group restarts, in its pods or in new ones: failurePolicy says"
    " how often"
}
_ELSE = "put it into the image, the script, or a job of its own"


def _security(pod: dict[str, Any] | None, container: Fields, job: Job) -> dict[str, Any]:
    shared = {name: container.take_any(name) for name in _OF_BOTH}
    both = {**(pod or {}), **{name: value for name, value in shared.items() if value is not None}}
    if both.get("runAsUser") == 0 and both.get("runAsNonRoot") is not False:
        text = "user 0 is root, as whom no pod of Headway's runs: give the number of another user"
        job.ask(container.at("runAsUser"), text, "spec.pod.securityContext")
    return both


def _tell_rest(spec: Fields, main: Fields, job: Job) -> None:
    for path, value in list(main.left()):
        _tell(path, path.removeprefix(f"{main.path}."), value, job)
    main.drop()
    for path, value in list(spec.left()):
        name = path.removeprefix(f"{spec.path}.")
        if not name.startswith("containers["):
            _tell(path, name, value, job)
            spec.take_any(name)


def _tell(path: str, name: str, value: Any, job: Job) -> None:
    if name == "ports":
        job.say(path, "the agents bring the ports that they need")
    elif name == "initContainers":
        job.ask(path, f"a TrainingJob has no init containers: {_ELSE}", "spec.pod")
    elif name.startswith("securityContext") and _restrictive(name, value):
        job.say(path, "is so in Headway")
    elif name.startswith("securityContext"):
        text = f"{name} can't be set: Headway's containers have no privileges"
        job.ask(path, text, "spec.pod")
    else:
        job.ask(path, f"pods of a TrainingJob have no {name}", "spec.pod")


def _restrictive(name: str, value: Any) -> bool:
    last = name.rpartition(".")[2]
    if last == "capabilities":
        return isinstance(value, dict) and not value.get("add")
    return (last, value) in {
        ("allowPrivilegeEscalation", False),
        ("privileged", False),
        ("readOnlyRootFilesystem", True),
    }


def put(found: Template, job: Job) -> None:
    """Sets what a TrainingJob takes of a template as it is."""
    job.put("image", found.image)
    if found.image:
        job.say(f"{found.path}.image", IMAGE, "spec.image")
    job.put("workers.resources", found.resources)
    for name, value in found.pod.items():
        job.put(f"pod.{name}", value)
    job.put("scheduling.priorityClassName", found.priority_class)
    quantities.put_gpus(found.resources_path or f"{found.path}.resources", found.gpus, job)


IMAGE = (
    "the image needs Headway's agent (trainer-image/Dockerfile), and a user other than root; its"
    " root file system is read-only"
)
