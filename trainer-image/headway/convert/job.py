"""What a conversion works on: the input, the TrainingJob as far as it is, what is to be told."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from pydantic import BaseModel

from headway.convert.fields import Fields
from headway_api.contract import API_VERSION
from headway_api.horovod import Horovod
from headway_api.pod import PodOptions
from headway_api.trainingjob import FailurePolicy, Scheduling, Workers

_ORDER = (
    "runtimeRef",
    "framework",
    "image",
    "command",
    "workers",
    "gpu",
    "horovod",
    "pod",
    "failurePolicy",
    "scheduling",
    "activeDeadlineSeconds",
    "ttlSecondsAfterFinished",
    "suspend",
    "managedBy",
)
_MODELS: dict[str, type[BaseModel]] = {
    "workers": Workers,
    "horovod": Horovod,
    "pod": PodOptions,
    "failurePolicy": FailurePolicy,
    "scheduling": Scheduling,
}


@dataclass(frozen=True)
class Note:
    """What a person should know of the conversion.

    Attributes:
        where: Path in the input.
        text: What became of it, and what to do.
        field: Path in the TrainingJob that has `text` as a comment; empty for no comment.
        check: Whether something needs a decision.
    """

    where: str
    text: str
    field: str = ""
    check: bool = False


@dataclass
class Job:
    """One job on its way.

    Attributes:
        source: Its manifest: what is taken is gone.
        pools: GPU pools to name.
        metadata: Of the TrainingJob.
        spec: Of the TrainingJob.
        notes: What is to be told.
    """

    source: Fields
    pools: tuple[str, ...] = ()
    metadata: dict[str, Any] = field(default_factory=dict)
    spec: dict[str, Any] = field(default_factory=dict)
    notes: list[Note] = field(default_factory=list)

    def put(self, path: str, value: Any) -> None:
        """Sets a field of the spec, e.g. `workers.replicas`; nothing is set to nothing."""
        if value is None or value in ({}, [], ""):
            return
        *above, last = path.split(".")
        target = self.spec
        for name in above:
            target = target.setdefault(name, {})
        target[last] = value

    def say(self, where: str, text: str, field: str = "") -> None:
        """Tells of something that needs nobody."""
        self.notes.append(Note(where, text, field))

    def ask(self, where: str, text: str, field: str) -> None:
        """Tells of something that a person has to decide; `field` gets a comment."""
        self.notes.append(Note(where, text, field, check=True))

    def manifest(self) -> dict[str, Any]:
        """The TrainingJob, its fields in the order in which people write them."""
        spec = {name: self.spec[name] for name in _ORDER if name in self.spec}
        for name, model in _MODELS.items():
            if name in spec:
                order = [info.alias or key for key, info in model.model_fields.items()]
                spec[name] = {key: spec[name][key] for key in order if key in spec[name]}
        return {
            "apiVersion": API_VERSION,
            "kind": "TrainingJob",
            "metadata": self.metadata,
            "spec": spec,
        }
