"""The command of a container, as the command of each rank."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from headway.convert import environment, framework, runpolicy
from headway.convert.job import Job
from headway.convert.options import resolved, whole
from headway.convert.podtemplate import Template
from headway.convert.program import Program, find

_UNKNOWN = "ENTRYPOINT"


def convert(found: Template, env: Mapping[str, str], job: Job) -> Program:
    """Sets `command` and tells of what a launcher in it was asked for.

    Args:
        found: Has the command; gets the working directory that a launcher was given.
        env: Variables of the container whose values are known.
        job: To set it in.
    """
    where = f"{found.path}.command" if found.command is not None else f"{found.path}.args"
    program = find([*(found.command or []), *found.args])
    if not found.command and program.launch is None:
        program.command = _with_entry_point(found, where, job)
    elif not program.command:  # a launcher alone
        program.command = [_UNKNOWN]
        job.ask(where, "no program was found after the launcher: write it here", "spec.command")
    job.put("command", program.command)
    for text in program.unclear:
        job.ask(where, text, "spec.command")
    if program.starter:
        text = (
            f"{program.starter} starts ranks by itself, as Headway's agents do: name the script"
            " directly, e.g. [python, train.py]"
        )
        job.ask(where, text, "spec.command")
    if program.launch is not None:
        resolved(program.launch, env)
        if program.launch.working_dir:
            found.pod["workingDir"] = program.launch.working_dir
        _tell_launch(program, where, job)
        if found.command and found.args:
            job.say(f"{found.path}.args", "go with the command")
    if ranks := sorted(filter(environment.is_of_ranks, names_used(program))):
        text = (
            f"the command uses {', '.join(ranks)}: the agents set RANK, LOCAL_RANK, WORLD_SIZE,"
            " MASTER_ADDR and the like for each rank, where a shell sees them and Kubernetes' $(…)"
            " does not"
        )
        job.ask(where, text, "spec.command")
    return program


def _with_entry_point(found: Template, where: str, job: Job) -> list[str]:
    text = (
        f"the image's entry point was used: write it instead of {_UNKNOWN}"
        f" (docker inspect {found.image})"
    )
    job.ask(where if found.args else found.path, text, "spec.command")
    return [_UNKNOWN, *found.args]


def _tell_launch(program: Program, where: str, job: Job) -> None:
    launch = program.launch
    assert launch is not None
    useless = f" (and its {', '.join(launch.useless)})" if launch.useless else ""
    text = f"{launch.tool}{useless} is left out: the agents of the pods start the ranks"
    job.say(where, text)
    if (limit := whole(launch.max_restarts)) is not None:
        runpolicy.restarts(where, limit, job)
    elif launch.max_restarts:
        text = f"{launch.max_restarts} of --max-restarts can't be read: how often may it restart?"
        job.ask(where, text, "spec.failurePolicy.maxRestarts")


def variables(program: Program, where: str, job: Job) -> list[dict[str, Any]]:
    """Variables that options set for the ranks."""
    given = program.launch.env if program.launch is not None else {}
    entries = [{"name": name, "value": value} for name, value in given.items() if value is not None]
    return environment.convert(entries, where, job)


def add_variables(program: Program, found: Template, job: Job) -> None:
    """The same, where mpirun or horovodrun was started in the pods themselves."""
    if program.launch is None or program.launch.tool not in {"mpirun", "horovodrun"}:
        return
    own = variables(program, f"{found.path}.command", job)
    found.pod["env"] = environment.merged(found.pod.get("env", []), own)
    framework.put(found, program, job)


def names_used(program: Program) -> set[str]:
    """Variables that the command refers to: `$X`, `${X}` or Kubernetes' `$(X)`."""
    return {name for word in program.command for name in re.findall(r"\$[{(]?([A-Za-z_]\w*)", word)}
