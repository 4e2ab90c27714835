"""PyTorchJob of kubeflow.org/v1: one master and some workers, each with torchrun or without."""

from __future__ import annotations

import copy
from typing import Any

from headway.convert import command_line, environment, podtemplate, runpolicy, sizes
from headway.convert.fields import ConvertError, Fields, leaves
from headway.convert.job import Job

_CONTAINER = "pytorch"
_RENDEZVOUS = ("rdzvBackend", "rdzvPort", "rdzvHost", "rdzvId", "rdzvConf", "standalone")


def convert(job: Job) -> None:
    """Takes a PyTorchJob over.

    Raises:
        ConvertError: it has no replicas.
    """
    spec = job.source.inner("spec")
    replicas = spec.inner("pytorchReplicaSpecs")
    given = [name for name in ("Master", "Worker") if "template" in replicas.inner(name)]
    if not given:
        raise ConvertError("spec.pytorchReplicaSpecs has no Master and no Worker with a template")
    group = replicas.inner(given[-1])
    raw = group.inner("template").raw()
    found = podtemplate.read(group.inner("template"), _CONTAINER, job)
    program = command_line.convert(found, environment.values(found.pod.get("env", [])), job)
    command_line.add_variables(program, found, job)
    podtemplate.put(found, job)
    counts = {name: _count(replicas.inner(name)) for name in given}
    pods = sum(counts.values())
    if pods < 1:
        raise ConvertError("spec.pytorchReplicaSpecs: a TrainingJob needs one replica at least")
    older = spec.inner("elasticPolicy")
    where = (spec, "nprocPerNode") if "nprocPerNode" in spec else (older, "nProcPerNode")
    sizes.put(pods, sizes.processes(*where, found, program, job), job)
    if program.launch is not None:
        sizes.put_nodes(f"{found.path}.command", program.launch, pods, job)
    if len(given) == 2:
        _compare(replicas.inner("Master"), raw, job)
        text = f"Master and Worker are one group of {pods}: worker 0 is the master"
        job.say(replicas.path, text)
    runpolicy.convert(spec.inner("runPolicy"), pods, job)
    _elastic(spec.inner("elasticPolicy"), counts, job)
    for name in given:
        runpolicy.restart_policy(replicas.inner(name), job)


def _count(replicas: Fields) -> int:
    count = replicas.take("replicas", int)
    return 1 if count is None else count


def _compare(master: Fields, worker: dict[str, Any], job: Job) -> None:
    """All pods of a TrainingJob are alike: what is different in the master's is asked about."""
    template = master.inner("template")
    if template.raw() != worker:
        job.say(template.path, "what the agents give to each rank may differ")
    theirs, ours = _comparable(template.raw()), _comparable(worker)
    for path in [*theirs, *(path for path in ours if path not in theirs)]:
        if theirs.get(path) != ours.get(path):
            has, have = (f"`{each.get(path, 'nothing')}`" for each in (theirs, ours))
            text = (
                f"pods of a TrainingJob are alike: Master had {has}, Worker {have} at {path}; the"
                " worker's is taken"
            )
            job.ask(template.at(path), text, "spec.pod" if "pod" in job.spec else "spec.workers")
    template.drop()


def _comparable(template: dict[str, Any]) -> dict[str, Any]:
    """Leaves of a template by path, its variables by name, without those that ranks have."""
    found: dict[str, Any] = {}
    for container in Fields(copy.deepcopy(template)).inner("spec").items("containers"):
        container.take_any("name")
        given = {each["name"]: each for each in container.named("env")}
        env = {name: each for name, each in given.items() if not environment.is_of_ranks(name)}
        found |= dict(leaves({**container.raw(), "env": env}, container.path))
    pod = template.get("spec") or {}
    rest = {name: value for name, value in pod.items() if name != "containers"}
    return found | dict(leaves({**template, "spec": rest}))


def _elastic(policy: Fields, counts: dict[str, int], job: Job) -> None:
    masters = counts.get("Master", 0) if "Worker" in counts else 0
    given = (policy.take(name, int) for name in ("minReplicas", "maxReplicas"))
    low, high = (None if size is None else size + masters for size in given)
    sizes.put_elastic(policy.path, low, high, sum(counts.values()), job)
    runpolicy.restarts(policy.at("maxRestarts"), policy.take("maxRestarts", int), job)
    if policy.take_any("nProcPerNode") is not None:
        job.say(policy.at("nProcPerNode"), "is left out: nprocPerNode counts")
    for name in _RENDEZVOUS:
        if policy.take_any(name) is not None:
            job.say(policy.at(name), "is left out: the agents find each other")
    if policy.take_any("metrics"):
        text = "`metrics` made an autoscaler: Headway has none"
        job.ask(policy.at("metrics"), text, "spec.workers")
