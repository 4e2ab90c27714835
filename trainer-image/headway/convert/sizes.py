"""How many pods and ranks a job has."""

from __future__ import annotations

from headway.convert.fields import Fields
from headway.convert.job import Job
from headway.convert.options import Launch, whole
from headway.convert.podtemplate import Template
from headway.convert.program import Program


def put(pods: int, processes: int, job: Job) -> None:
    """Sets `workers.replicas` and `workers.processesPerWorker`; one process is not written."""
    job.put("workers.replicas", pods)
    if processes != 1:
        job.put("workers.processesPerWorker", processes)


def put_elastic(where: str, fewest: int | None, most: int | None, pods: int, job: Job) -> None:
    """Sets `workers.elastic`, if the group may have several sizes."""
    if fewest is None and most is None:
        return
    if (fewest or 0) > pods or (most or pods) < pods:
        text = f"from {fewest} to {most} pods were asked for, and {pods} replicas: which is meant?"
        job.ask(where, text, "spec.workers.replicas")
    low = max(1, min(fewest if fewest is not None else pods, pods))
    high = max(most if most is not None else pods, pods)
    if low == high:
        job.say(where, "the group has one size")
        return
    job.put("workers.elastic", {"minReplicas": low, "maxReplicas": high})


def put_nodes(where: str, launch: Launch, pods: int, job: Job) -> None:
    """Holds torchrun's `--nnodes` to the number of pods, and takes its range."""
    fewest, most = (whole(each) for each in launch.elastic)
    put_elastic(where, fewest, most, pods, job)
    asked = whole(launch.nodes)
    if asked is not None and asked != pods and launch.elastic == ("", ""):
        text = f"--nnodes was {asked}, with {pods} pods: which is meant?"
        job.ask(where, text, "spec.workers.replicas")


def ask_gpus(where: str, processes: int, gpus: int, job: Job) -> None:
    """Asks about pods whose ranks and GPUs are not as many."""
    if gpus and gpus != processes:
        text = (
            f"ranks of each pod: {processes}, GPUs: {gpus}, as before: if a rank starts others"
            " (mp.spawn), leave that to the agents, with a rank for each GPU"
        )
        job.put("workers.processesPerWorker", processes)
        job.ask(where, text, "spec.workers.processesPerWorker")


def processes(source: Fields, name: str, found: Template, program: Program, job: Job) -> int:
    """Ranks of each pod: what torchrun was asked for; without it, a pod runs one process.

    Args:
        source: Has the number in a field.
        name: Of that field.
        found: Pod template.
        program: With torchrun's own option, which goes before.
        job: Is asked.
    """
    given = source.take_any(name)
    text = "" if given is None else str(given)
    launch = program.launch
    if launch is not None:
        if launch.per_worker and given is not None and launch.per_worker != text:
            job.say(source.at(name), f"{text} is left out: the command says {launch.per_worker}")
        count = ranks_in_pod(source.at(name), launch.per_worker or text, found.gpus, job)
        if not launch.per_worker and given is not None and whole(text) is None:
            job.say(source.at(name), f"{text} is processesPerWorker: {count}")
    else:
        count = whole(text) or 1
        if given is not None and whole(text) is None:
            job.say(source.at(name), f"{text} is left out: without torchrun a pod has one rank")
    ask_gpus(found.resources_path or f"{found.path}.resources", count, found.gpus, job)
    return count


def ranks_in_pod(where: str, given: str, gpus: int, job: Job) -> int:
    """Ranks of each pod from what torchrun understands: a number, `auto`, `gpu` or `cpu`.

    Args:
        where: Path in the input.
        given: As written; empty where it was not.
        gpus: GPUs of each pod.
        job: Is asked where the answer is not in the manifest.
    """
    number = whole(given)
    if number is not None:
        return number
    if given in {"", "auto", "gpu"} and gpus:
        return gpus
    text = f"{given or 'auto'} is one rank for each CPU or GPU of the pod: how many are that?"
    if given not in {"", "auto", "gpu", "cpu"}:
        text = f"{given} ranks in each pod can't be read: how many are that?"
    job.put("workers.processesPerWorker", 1)
    job.ask(where, text, "spec.workers.processesPerWorker")
    return 1
