"""Volumes of the pod, without those that Headway brings itself."""

from __future__ import annotations

from typing import Any

from headway.convert.fields import Fields
from headway.convert.job import Job
from headway_api.contract import SCRATCH_DIR, SHM_DIR, TMP_DIR

_OURS = {SHM_DIR, TMP_DIR, SCRATCH_DIR}


def convert(spec: Fields, container: Fields, job: Job) -> dict[str, Any]:
    """Takes `volumes` and `volumeMounts`.

    Returns:
        `volumes`, `volumeMounts` and `sharedMemory` of `spec.pod`, as far as there are any.
    """
    where = container.at("volumeMounts")
    volumes, mounts = spec.named("volumes"), container.named("volumeMounts")
    by_name = {each["name"]: each for each in volumes}
    kept, shared = [], None
    for index, mount in enumerate(mounts):
        path = str(mount.get("mountPath", "")).rstrip("/")
        if path not in _OURS:
            kept.append(mount)
            continue
        volume = by_name.get(mount["name"], {})
        if path == SHM_DIR and "emptyDir" in volume:
            shared = Fields(volume["emptyDir"], spec.at("volumes")).take_any("sizeLimit")
            told = f"is sharedMemory: {shared}" if shared else "as large as half the memory limit"
            job.say(f"{where}[{index}]", f"Headway mounts {path} itself: {told}")
        elif "emptyDir" in volume:
            job.say(f"{where}[{index}]", f"Headway mounts {path} itself, empty")
        else:
            text = f"Headway mounts {path} itself: mount {mount.get('name')} at another path"
            job.ask(f"{where}[{index}]", text, "spec.pod")
    used = {mount["name"] for mount in kept}
    return {
        "volumes": _used(volumes, used, spec.at("volumes"), job),
        "volumeMounts": kept,
        "sharedMemory": shared,
    }


def _used(
    volumes: list[dict[str, Any]], used: set[str], where: str, job: Job
) -> list[dict[str, Any]]:
    kept = []
    for index, volume in enumerate(volumes):
        if volume["name"] not in used:
            job.say(f"{where}[{index}]", f"{volume['name']} is left out: nothing mounts it")
        else:
            kept.append(volume)
    return kept
