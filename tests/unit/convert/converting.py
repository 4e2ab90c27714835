"""What the tests of `headway convert` share."""

from pathlib import Path
from typing import Any

import yaml

from headway.convert.documents import Document, convert

MANIFESTS = sorted((Path(__file__).parent / "manifests").glob("*.yaml"))
WORKER = "spec.mpiReplicaSpecs.Worker.template.spec"


def one(manifest: dict[str, Any] | str, pools: tuple[str, ...] = ()) -> Document:
    text = manifest if isinstance(manifest, str) else yaml.safe_dump(manifest)
    (document,) = convert(text, pools)
    return document


def spec_of(document: Document) -> dict[str, Any]:
    spec: dict[str, Any] = yaml.safe_load(document.text)["spec"]
    return spec


def checks(document: Document) -> str:
    return "\n".join(f"{n.where}: {n.text}" for n in document.notes if n.check)


def told(document: Document) -> str:
    return "\n".join(f"{n.where}: {n.text}" for n in document.notes if not n.check)


def template(command: list[str] | None = None, **container: Any) -> dict[str, Any]:
    """A pod template; what is given beside the command belongs to the container."""
    words = {} if command is None else {"command": command}
    main = {"name": "pytorch", "image": "registry.example.com/a:1", **words, **container}
    return {"spec": {"containers": [main]}}


def mpijob(command: list[str], worker: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    """An MPIJob of two workers, whose launcher has this command."""
    launcher = {"template": template(command)}
    workers = {"replicas": 2, "template": worker or template()}
    return {
        "apiVersion": "kubeflow.org/v2beta1",
        "kind": "MPIJob",
        "metadata": {"name": "a"},
        "spec": {"mpiReplicaSpecs": {"Launcher": launcher, "Worker": workers}, **spec},
    }


def pytorchjob(
    worker: dict[str, Any], master: dict[str, Any] | None = None, **spec: Any
) -> dict[str, Any]:
    """A PyTorchJob of three workers, and a master where one is given."""
    replicas = {"Worker": {"replicas": 3, "template": worker}}
    if master is not None:
        replicas["Master"] = {"replicas": 1, "template": master}
    return {
        "apiVersion": "kubeflow.org/v1",
        "kind": "PyTorchJob",
        "metadata": {"name": "a"},
        "spec": {"pytorchReplicaSpecs": replicas, **spec},
    }


def trainjob(trainer: dict[str, Any], **spec: Any) -> dict[str, Any]:
    """A TrainJob over Kubeflow's plain runtime."""
    given = {"image": "registry.example.com/a:1", "numNodes": 2, **trainer}
    return {
        "apiVersion": "trainer.kubeflow.org/v1alpha1",
        "kind": "TrainJob",
        "metadata": {"name": "a"},
        "spec": {"runtimeRef": {"name": "torch-distributed"}, "trainer": given, **spec},
    }
