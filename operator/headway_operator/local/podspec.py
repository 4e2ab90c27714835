"""What a pod's spec means for a process on this machine. Pure but for writing the pod's files."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from headway_api import contract
from headway_operator.trainingjob.quantity import whole_bytes

_REFERENCE = re.compile(r"\$\(([A-Za-z_][A-Za-z0-9_.-]*)\)")
_ANNOTATION = re.compile(r"metadata\.annotations\['(.+)'\]")
_OURS = ("/var/run/secrets/", "/headway/")
"""Where our own volumes are mounted that variables point to."""
AGENT = (sys.executable, "-m", "headway.agent")

IssueToken = Callable[[str, int], str]
"""Makes a token for an audience, valid for so many seconds."""
ReadSecret = Callable[[str], Mapping[str, str] | None]
"""Data of a Secret by name; None where there is none."""


@dataclass(frozen=True)
class Process:
    """How to run a pod's container as a process.

    Attributes:
        command: Program and arguments.
        env: Variables added to those of this process.
        working_dir: Where it starts; None for the current folder.
        memory_limit: Bytes that it and its children may use; None for no limit.
    """

    command: tuple[str, ...]
    env: dict[str, str]
    working_dir: str | None
    memory_limit: int | None


def quantity(text: str | int) -> int:
    """Bytes of a memory quantity such as `512Mi`.

    Raises:
        ValueError: it is none.
    """
    try:
        return whole_bytes(text)
    except (ArithmeticError, KeyError):
        raise ValueError(f"not a memory quantity: {text!r}") from None


def secret_names(pod: Mapping[str, Any]) -> set[str]:
    """Names of the Secrets that the container's environment refers to."""
    container = pod["spec"]["containers"][0]
    sources = [s.get("secretRef") for s in container.get("envFrom", ())]
    sources += [(e.get("valueFrom") or {}).get("secretKeyRef") for e in container.get("env", ())]
    return {source["name"] for source in sources if source}


def volume_paths(pod: Mapping[str, Any], folder: Path, issue: IssueToken) -> dict[str, Path]:
    """Make the pod's volumes under `folder`; returns where each mount path is.

    Only what our own pods have is made: empty folders and projected tokens. Other volumes have
    no meaning here; their mount paths stay as they are.
    """
    volumes: dict[str, Path] = {}
    for volume in pod["spec"].get("volumes", ()):
        place = folder / volume["name"]
        if "emptyDir" in volume:
            place.mkdir(parents=True, exist_ok=True)
        elif "projected" in volume:
            place.mkdir(parents=True, exist_ok=True, mode=0o700)
            for source in volume["projected"].get("sources", ()):
                token = source.get("serviceAccountToken")
                if token:
                    # A year: nobody renews it here, and it is worth nothing outside.
                    (place / token["path"]).write_text(issue(token["audience"], 365 * 86400))
                for item in source.get("downwardAPI", {}).get("items", ()):
                    text = _field(pod, item["fieldRef"]["fieldPath"], "")
                    (place / item["path"]).write_text(text)
        else:
            continue
        volumes[volume["name"]] = place
    mounts = pod["spec"]["containers"][0].get("volumeMounts", ())
    return {m["mountPath"]: volumes[m["name"]] for m in mounts if m["name"] in volumes}


def _field(pod: Mapping[str, Any], path: str, address: str) -> str:
    if path == "status.podIP":
        return address
    value: Any = pod
    annotation = _ANNOTATION.fullmatch(path)
    parts = ["metadata", "annotations", annotation[1]] if annotation else path.split(".")
    for part in parts:
        value = value.get(part, "") if isinstance(value, Mapping) else ""
    return str(value)


def _local(value: str, mounts: Mapping[str, Path]) -> str:
    for mount, place in mounts.items():
        # A user's own path may well lie below /tmp, and means this machine's.
        ours = mount.startswith(_OURS)
        if ours and (value == mount or value.startswith(mount + "/")):
            return str(place) + value[len(mount) :]
    return value


def environment(
    pod: Mapping[str, Any], address: str, mounts: Mapping[str, Path], secret: ReadSecret
) -> dict[str, str]:
    """The container's variables, with paths of volumes moved to where they are here."""
    container = pod["spec"]["containers"][0]
    env: dict[str, str] = {}
    for source in container.get("envFrom", ()):
        name = source.get("secretRef", {}).get("name")
        env |= dict(secret(name) or {}) if name else {}
    for entry in container.get("env", ()):
        origin = entry.get("valueFrom") or {}
        if "fieldRef" in origin:
            env[entry["name"]] = _field(pod, origin["fieldRef"]["fieldPath"], address)
        elif "secretKeyRef" in origin:
            data = secret(origin["secretKeyRef"]["name"]) or {}
            if origin["secretKeyRef"]["key"] in data:
                env[entry["name"]] = data[origin["secretKeyRef"]["key"]]
        elif "value" in entry:
            text = _REFERENCE.sub(lambda m: env.get(m[1], m[0]), entry["value"])
            env[entry["name"]] = _local(text, mounts)
    return env


def process(
    pod: Mapping[str, Any],
    folder: Path,
    address: str,
    issue: IssueToken,
    secret: ReadSecret,
) -> Process:
    """How to run this pod here, with its files below `folder`."""
    container = pod["spec"]["containers"][0]
    mounts = volume_paths(pod, folder / "volumes", issue)
    env = environment(pod, address, mounts, secret)
    env[contract.ENV_TERMINATION_LOG] = str(folder / "termination")
    env[contract.ENV_POD_IP] = address
    env["GLOO_SOCKET_IFNAME"] = "lo"
    command = [*container.get("command", ()), *container.get("args", ())]
    if command[:1] == ["headway-agent"]:
        command = command[1:]
    limit = container.get("resources", {}).get("limits", {}).get("memory")
    return Process(
        command=(*AGENT, *command),
        env=env,
        working_dir=_existing(container.get("workingDir")),
        memory_limit=quantity(limit) if limit is not None else None,
    )


def _existing(folder: str | None) -> str | None:
    """A folder of the image has its counterpart in the folder where `headway run` was started."""
    return folder if folder and Path(folder).is_dir() else None
