"""Horovod's variables as `spec.horovod`, wherever they came from."""

from __future__ import annotations

from typing import Any

from headway.convert import environment
from headway.convert.job import Job
from headway_api.horovod import fields

_FILES = {
    "HOROVOD_TIMELINE": "horovod.timeline",
    "HOROVOD_AUTOTUNE_LOG": "horovod.autotune.log",
}


def take(pod: dict[str, Any], where: str, job: Job) -> None:
    """Sets `horovod`; variables that it has no place for stay in `pod.env`.

    Args:
        pod: Has the variables, `env`; loses those that become fields.
        where: Path of the container.
        job: To set it in.
    """
    given: list[dict[str, Any]] = pod.get("env", [])
    settings, taken = fields(environment.values(given))
    job.put("horovod", settings)
    left = [entry for entry in given if entry["name"] not in taken]
    if left:
        pod["env"] = left
    else:
        pod.pop("env", None)
    for entry in left:
        name, path = entry["name"], entry.get("value")
        if name in _FILES and path:
            text = (
                f"{name}={path} is a file in worker 0, in /tmp or a volume; {_FILES[name]} keeps"
                " one in storage instead, for which it needs storage.uri"
            )
            job.ask(where, text, "spec.pod.env")
