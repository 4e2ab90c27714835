"""From a file of manifests to a file of manifests."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from headway.convert import metadata as names
from headway.convert import mpijob, pytorchjob, trainjob, writing
from headway.convert.fields import ConvertError, Fields
from headway.convert.job import Job, Note
from headway_api.kinds import TRAINING_JOB
from headway_api.validation import ValidationError, admit

_KINDS: Mapping[str, tuple[tuple[str, ...], Callable[[Job], None]]] = {
    "MPIJob": (("kubeflow.org/v2beta1", "kubeflow.org/v1"), mpijob.convert),
    "PyTorchJob": (("kubeflow.org/v1",), pytorchjob.convert),
    "TrainJob": (("trainer.kubeflow.org/v1alpha1",), trainjob.convert),
}
_MARKER = re.compile(r"^---(?=\s|$)[^\S\n]*", re.MULTILINE)


class _Loader(yaml.SafeLoader):
    """YAML as Kubernetes reads it, which has no dates."""

    yaml_implicit_resolvers = {  # noqa: RUF012 (as PyYAML declares it)
        first: [(tag, pattern) for tag, pattern in found if not tag.endswith(":timestamp")]
        for first, found in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


@dataclass(frozen=True)
class Document:
    """One document of the output.

    Attributes:
        name: Kind and name of what it was, e.g. `MPIJob/mnist`.
        text: YAML.
        notes: What is to be told of it.
        converted: Whether it is a TrainingJob now; otherwise it passed through.
    """

    name: str
    text: str
    notes: tuple[Note, ...] = ()
    converted: bool = False


def convert(text: str, pools: tuple[str, ...] = ()) -> list[Document]:
    """Converts each document of a file that is a job of another operator.

    Args:
        text: YAML of one or several documents.
        pools: GPU pools to name in jobs that ask for GPUs.

    Raises:
        ConvertError: the text is no YAML, or a job in it can't be read, or there is none.
    """
    documents = [each for chunk in _MARKER.split(text) for each in _convert_chunk(chunk, pools)]
    if not any(each.converted for each in documents):
        found = ", ".join(each.name for each in documents) or "nothing"
        known = ", ".join(f"{kind} ({versions[0]})" for kind, (versions, _) in _KINDS.items())
        raise ConvertError(f"no job to convert: there is {found}; known kinds are {known}")
    return documents


def output(documents: list[Document]) -> str:
    """The documents as one file."""
    return "---\n".join(each.text for each in documents)


def _convert_chunk(chunk: str, pools: tuple[str, ...]) -> Iterator[Document]:
    try:
        content = yaml.load(chunk, _Loader)  # noqa: S506 (a SafeLoader)
    except yaml.YAMLError as error:
        raise ConvertError(f"this is not valid YAML: {' '.join(str(error).split())}") from None
    if content is None:
        return
    if not isinstance(content, dict):
        raise ConvertError("a document is not an object with apiVersion and kind")
    if content.get("kind") == "List" and isinstance(content.get("items"), list):
        for item in content["items"]:
            yield _convert_one(item, writing.dump(item), "", pools)
        return
    yield _convert_one(content, chunk.strip("\n") + "\n", _heading(chunk), pools)


def _convert_one(content: Any, text: str, heading: str, pools: tuple[str, ...]) -> Document:
    if not isinstance(content, dict):
        raise ConvertError("a document is not an object with apiVersion and kind")
    kind, version = str(content.get("kind") or "no kind"), str(content.get("apiVersion"))
    metadata = content.get("metadata")
    name = metadata.get("name") if isinstance(metadata, dict) else None
    label = f"{kind}/{name}" if name else kind
    versions, function = _KINDS.get(kind, ((), None))
    if function is None or version not in versions:
        note = Note("", f"{kind} ({version}) passes through unchanged")
        return Document(label, text, (note,))
    try:
        job = Job(Fields(content), pools)
        manifest = _manifest(job, function)
    except ConvertError as error:
        raise ConvertError(f"{label}: {error}") from None
    notes = tuple(dict.fromkeys([*job.notes, *_refused(manifest)]))
    return Document(label, heading + writing.write(manifest, notes), notes, converted=True)


def _manifest(job: Job, function: Callable[[Job], None]) -> dict[str, Any]:
    names.convert(job)
    function(job)
    job.source.take("apiVersion", str)
    job.source.take("kind", str)
    for path, _ in list(job.source.left()):
        job.ask(path, f"{path} is left out: a TrainingJob has nothing like it", "spec")
    return job.manifest()


def _refused(manifest: dict[str, Any]) -> list[Note]:
    """What the API server would say to the result."""
    try:
        admit(TRAINING_JOB, manifest)
    except ValidationError as error:
        return [Note(c.field, f"refused: {c.message}", c.field, check=True) for c in error.causes]
    except ImportError:  # without CEL only the cluster knows
        return []
    return []


def _heading(chunk: str) -> str:
    """Comments before the document: they are about the whole."""
    found = re.match(r"(?:[^\S\n]*(?:#[^\n]*)?\n)*", chunk)
    lines = found[0].splitlines() if found else []
    return "".join(f"{line}\n" for line in lines if line.strip())
