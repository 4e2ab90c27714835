"""MPIJob of kubeflow.org/v2beta1 and v1: a launcher pod that reaches workers by ssh.

A TrainingJob has no launcher: what mpirun or horovodrun started there is the command of the ranks.
"""

from __future__ import annotations

from typing import Any

from headway.convert import command_line, environment, framework, podtemplate, runpolicy, sizes
from headway.convert.fields import ConvertError, Fields, leaves
from headway.convert.job import Job
from headway.convert.options import Launch, whole
from headway.convert.podtemplate import Template
from headway.convert.program import Program

_FORMER = {
    "sshAuthMountPath": "there is no ssh between the pods",
    "mpiImplementation": "ranks are not started by MPI",
    "launcherCreationPolicy": "there is no launcher pod",
    "waitForWorkers": "the agents wait for each other",
    "mainContainer": "the container of that name is the one that trains",
}
_NEEDED_THERE = ("volumes", "volumeMounts", "envFrom", "initContainers", "containers")


def convert(job: Job) -> None:
    """Takes an MPIJob over.

    Raises:
        ConvertError: it has no launcher or no workers.
    """
    spec = job.source.inner("spec")
    replicas = spec.inner("mpiReplicaSpecs")
    launcher, worker = replicas.inner("Launcher"), replicas.inner("Worker")
    for name, given in (("Launcher", launcher), ("Worker", worker)):
        if "template" not in given:
            raise ConvertError(f"spec.mpiReplicaSpecs.{name} is missing, or has no template")
    main = spec.take("mainContainer", str) or ""
    container = podtemplate.trainer(launcher.inner("template").inner("spec"), main)
    raw = worker.inner("template").raw()
    found = podtemplate.read(worker.inner("template"), str(container.raw().get("name", "")), job)
    program = _program(container, found, job)
    framework.put(found, program, job)
    podtemplate.put(found, job)
    pods, processes = _sizes(spec, worker, launcher, program, job)
    if job.source.raw().get("apiVersion", "").endswith("/v1"):
        runpolicy.convert(_legacy(spec), pods, job)
    runpolicy.convert(spec.inner("runPolicy"), pods, job)
    sizes.ask_gpus(f"{found.path}.resources", processes, found.gpus, job)
    _former(spec, launcher, worker, job)
    _launcher_rest(launcher, container, raw, job)


def _program(container: Fields, found: Template, job: Job) -> Program:
    """What the launcher starts is the command; its variables that ranks see are theirs."""
    for path, words in (
        (f"{found.path}.command", found.command),
        (f"{found.path}.args", found.args),
    ):
        if words:
            job.say(path, "is left out: workers need no ssh server")
    has_command = "command" in container
    there = Template(container.path, found.image)
    there.command = container.texts("command") if has_command else None
    there.args = container.texts("args")
    image = container.take("image", str)
    if image not in {None, found.image}:
        text = f"{image} of the launcher is left out: ranks run in the workers' image"
        job.ask(container.at("image"), text, "spec.image")
    where = container.at("env")
    given = container.named("env")
    program = command_line.convert(there, environment.values(given), job)
    _working_dir(container, there, found, job)
    env = {each["name"]: each for each in environment.convert(given, where, job)}
    found.pod["env"] = _variables(program, found.pod.get("env", []), env, where, job)
    if not found.pod["env"]:
        del found.pod["env"]
    if program.launch is None:
        text = "there is no mpirun or horovodrun in the launcher's command: each rank runs it now"
        job.ask(there.path, text, "spec.command")
    if not program.is_python:
        text = (
            "this does not look like Python: Headway runs Python training with Horovod or"
            " torch.distributed, no other MPI programs"
        )
        job.ask(there.path, text, "spec.command")
    return program


def _working_dir(container: Fields, there: Template, found: Template, job: Job) -> None:
    """Ranks begin where mpirun was told to, or else where it began itself."""
    own = container.take("workingDir", str)
    directory, before = there.pod.get("workingDir") or own, found.pod.get("workingDir")
    if own is not None and directory != own:
        job.say(container.at("workingDir"), f"{own} is left out: the command says {directory}")
    if directory is not None and before not in {None, directory}:
        text = f"{before} of the workers is left out: mpirun began in {directory}"
        job.say(f"{found.path}.workingDir", text)
    if directory is not None:
        found.pod["workingDir"] = directory


def _variables(
    program: Program,
    workers: list[dict[str, Any]],
    launchers: dict[str, dict[str, Any]],
    where: str,
    job: Job,
) -> list[dict[str, Any]]:
    """Variables of the workers, of options, and those of the launcher that ranks saw."""
    launch = program.launch or Launch("")
    seen = set(launchers) if launch.horovod or program.launch is None else set()
    seen |= {name for name, value in launch.env.items() if value is None}
    seen |= command_line.names_used(program)
    exported = [entry for name, entry in launchers.items() if name in seen]
    there = where.removesuffix("env") + "command"
    own = command_line.variables(program, there, job)
    image = [n for n, v in launch.env.items() if v is None and n not in launchers]
    if image:
        text = f"-x {' -x '.join(image)} is left out: ranks have what the image or the script sets"
        job.say(there, text)
    for name in launchers:
        if name not in seen:
            text = f"{name} is left out: mpirun did not pass it on to the ranks (-x {name})"
            job.say(where, text)
    return environment.merged(environment.merged(workers, exported), own)


def _sizes(
    spec: Fields, worker: Fields, launcher: Fields, program: Program, job: Job
) -> tuple[int, int]:
    slots = spec.take("slotsPerWorker", int)
    pods = worker.take("replicas", int)
    pods = 1 if pods is None else pods
    if pods < 1:
        raise ConvertError(f"{worker.at('replicas')} is {pods}: a TrainingJob needs a worker")
    if launcher.take("replicas", int) is not None:
        job.say(launcher.at("replicas"), "is left out: there is no launcher pod")
    if spec.take("runLauncherAsWorker", bool):
        pods += 1
        job.say(spec.at("runLauncherAsWorker"), f"the launcher was a worker too: {pods} replicas")
    launch = program.launch or Launch("")
    processes = whole(launch.per_worker) or slots or 1
    sizes.put(pods, processes, job)
    where = f"{launcher.path}.template"
    _compare(where, launch, pods, processes, job)
    fewest, most = (whole(each) for each in launch.elastic)
    in_pods = [None if n is None else max(1, n // processes) for n in (fewest, most)]
    sizes.put_elastic(where, in_pods[0], in_pods[1], pods, job)
    return pods, processes


def _compare(where: str, launch: Launch, pods: int, processes: int, job: Job) -> None:
    if not launch.processes:
        return
    asked = whole(launch.processes)
    if asked is None:
        text = f"-np {launch.processes} is left out: there are {pods * processes} ranks"
        job.say(where, text)
    elif asked != pods * processes:
        text = (
            f"-np {asked} started {asked} ranks; {pods} replicas with {processes} each are"
            f" {pods * processes}: which is meant?"
        )
        job.ask(where, text, "spec.workers.replicas")


def _legacy(spec: Fields) -> Fields:
    """The run policy that v1 also takes directly in the spec."""
    names = ("cleanPodPolicy", "ttlSecondsAfterFinished", "activeDeadlineSeconds", "backoffLimit")
    given = {name: spec.take_any(name) for name in names if name in spec}
    return Fields(given, "spec")


def _former(spec: Fields, launcher: Fields, worker: Fields, job: Job) -> None:
    for name, why in _FORMER.items():
        if spec.take_any(name) is not None:
            job.say(spec.at(name), f"is left out: {why}")
    for replicas in (launcher, worker):
        if replicas.take("restartPolicy", str) is not None:
            text = "is left out: failurePolicy says how often the group restarts"
            job.say(replicas.at("restartPolicy"), text)


def _launcher_rest(launcher: Fields, container: Fields, worker: dict[str, Any], job: Job) -> None:
    """What only the launcher's pod had: ranks may have relied on its volumes, not on more."""
    container.take("name", str)
    here = {str(value) for _, value in leaves(worker)}
    for path, value in list(launcher.left()):
        name = path.rpartition(".")[2].partition("[")[0]
        same = all(str(leaf) in here for _, leaf in leaves(value))
        if same and name in _NEEDED_THERE:
            job.say(path, "the workers have the same")
        elif name in _NEEDED_THERE:
            text = f"{name} of the launcher: there is no such pod, so workers have to have them"
            job.ask(path, text, "spec.pod")
        else:
            job.say(path, "is left out: there is no launcher pod")
    launcher.drop()
