"""Whether ranks use Horovod or torch.distributed."""

from __future__ import annotations

from headway.convert import horovod
from headway.convert.job import Job
from headway.convert.podtemplate import Template
from headway.convert.program import Program


def put(found: Template, program: Program, job: Job) -> None:
    """Sets `framework`, and Horovod's settings, for a program that MPI or horovodrun started."""
    names = [entry["name"] for entry in found.pod.get("env", [])]
    text = " ".join([found.image or "", *program.command]).lower()
    known = (program.launch is not None and program.launch.horovod) or "horovod" in text
    if known or any(name.startswith("HOROVOD_") for name in names):
        job.put("framework", "Horovod")
        horovod.take(found.pod, found.path, job)
        return
    job.put("framework", "PyTorch")
    hint = "nothing here says Horovod: if the script imports it, write Horovod instead"
    job.ask(found.path, hint, "spec.framework")
