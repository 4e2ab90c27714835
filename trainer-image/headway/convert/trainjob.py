"""TrainJob of trainer.kubeflow.org/v1alpha1: a trainer over a runtime of Kubeflow's."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from headway.convert import command_line, environment, podtemplate, quantities, runpolicy, sizes
from headway.convert.fields import Fields
from headway.convert.job import Job
from headway.convert.podtemplate import Template
from headway.convert.program import Program

_PLAIN = "torch-distributed"
"""Kubeflow's runtime that adds nothing but torchrun."""
_NODE = "node"
_KINDS = ("ClusterTrainingRuntime", "TrainingRuntime")


def convert(job: Job) -> None:
    """Takes a TrainJob over."""
    spec = job.source.inner("spec")
    trainer = spec.inner("trainer")
    found = Template(trainer.path, trainer.take("image", str))
    found.command = trainer.texts("command") if "command" in trainer else None
    found.args = trainer.texts("args")
    resources = trainer.inner("resourcesPerNode")
    found.resources, found.gpus = quantities.convert(resources, job)
    found.resources_path = resources.path
    env = environment.convert(trainer.named("env"), trainer.at("env"), job)
    for template in _overrides(spec, job):
        _merge(template, found, job)
    found.pod["env"] = environment.merged(found.pod.get("env", []), env)
    # Without a command, the runtime has it.
    program = Program([])
    if found.command is not None or found.args:
        known = environment.values(found.pod["env"])
        program = command_line.convert(found, known, job)
    command_line.add_variables(program, found, job)
    podtemplate.put(found, job)
    _runtime(spec.inner("runtimeRef"), job)
    pods = trainer.take("numNodes", int)
    if pods is None:
        text = "numNodes was the runtime's: how many pods?"
        job.ask(trainer.at("numNodes"), text, "spec.workers.replicas")
    sizes.put(pods or 1, sizes.processes(trainer, "numProcPerNode", found, program, job), job)
    if program.launch is not None:
        sizes.put_nodes(f"{found.path}.command", program.launch, pods or 1, job)
    job.put("activeDeadlineSeconds", spec.take("activeDeadlineSeconds", int))
    runpolicy.suspend(spec, job)
    runpolicy.managed_by(spec, job)
    for source in (spec, trainer):  # some manifests have it, wrongly, in the trainer
        for path, _ in list(source.inner("initializer").left()):
            text = (
                "a TrainingJob has no initializer: let the script load it, or mount a volume that"
                " another job has filled"
            )
            job.ask(path, text, "spec.command" if "command" in job.spec else "spec")
        source.inner("initializer").drop()


def _runtime(reference: Fields, job: Job) -> None:
    name = reference.take("name", str)
    kind = reference.take("kind", str)
    if (group := reference.take("apiGroup", str)) is not None:
        job.say(reference.at("apiGroup"), f"{group} is left out: runtimes are Headway's")
    missing = [each for each in ("image", "command") if each not in job.spec]
    if name is None or (name == _PLAIN and not missing):
        text = f"{name or 'no runtime'}: is left out, Headway does what it did"
        job.say(reference.path, text)
        return
    kind = kind if kind in _KINDS else _KINDS[0]
    job.put("runtimeRef", {"name": name, "kind": kind})
    what = " and ".join(missing) or "what Kubeflow's runtime of this name gave"
    text = f"a {kind} of Headway's with this name has to give {what}: make one, or set it here"
    job.ask(reference.at("name"), text, "spec.runtimeRef")


def _overrides(spec: Fields, job: Job) -> Iterator[Fields]:
    """Parts of a pod template that the job lays over its runtime's, in each version's form."""
    for item in spec.items("podTemplateOverrides"):
        if _is_for_nodes(item, job):
            yield item
    for item in spec.items("podSpecOverrides"):
        if _is_for_nodes(item, job):
            yield Fields.around("spec", item)
    for patch in spec.items("runtimePatches"):
        for name in ("manager", "time"):
            if patch.take_any(name) is not None:
                job.say(patch.at(name), "is left out: what was patched is part of the job now")
        jobs = patch.inner("trainingRuntimeSpec").inner("template").inner("spec")
        for each in jobs.items("replicatedJobs"):
            if each.raw().get("name") == _NODE:
                each.take("name", str)
                yield each.inner("template").inner("spec").inner("template")


def _is_for_nodes(item: Fields, job: Job) -> bool:
    names = [each.take("name", str) or "" for each in item.items("targetJobs")]
    others = [name for name in names if name != _NODE]
    if others:
        text = f"{', '.join(others)} of the runtime: a TrainingJob has its workers only"
        job.ask(item.path, text, "spec.workers")
    if _NODE not in names:
        item.drop()
    return _NODE in names


def _merge(template: Fields, found: Template, job: Job) -> None:
    """Lays one override over what is there."""
    spec = template.inner("spec")
    containers = spec.items("containers")
    named = [each for each in containers if each.raw().get("name") == _NODE]
    main = named[0] if named else Fields({}, spec.at("containers"))
    over = podtemplate.overlay(template, main, job)
    for other in containers:
        if other is not main and any(other.left()):
            job.ask(other.path, "a pod of a TrainingJob has one container", "spec.pod")
            other.drop()
    found.resources = quantities.merged(found.resources, over.resources)
    found.gpus = over.gpus or found.gpus
    found.priority_class = over.priority_class or found.priority_class
    for name, value in over.pod.items():
        found.pod[name] = _merged(name, found.pod.get(name), value)


def _merged(name: str, base: Any, over: Any) -> Any:
    if name == "env":
        return environment.merged(base or [], over)
    if isinstance(base, dict) and isinstance(over, dict):
        return {**base, **over}
    if isinstance(base, list) and isinstance(over, list):
        return [*base, *over]
    return over
