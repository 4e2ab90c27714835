"""Loading a checkpoint without a job: for inference, fine-tuning, or a look at it."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from headway.checkpoint.errors import NoValidCheckpoint
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.location import open_existing, others
from headway.checkpoint.manifest import Commit
from headway.checkpoint.reader import Into, Restored, Wanted, restore_newest
from headway.checkpoint.state import TensorSpec
from headway.train.state import AsItWas, empty_for, unflatten, view_of
from headway_api import contract

log = logging.getLogger("headway")


@dataclass(frozen=True)
class Loaded:
    """A checkpoint in memory, every byte of it verified.

    Attributes:
        checkpoint: Which one.
        objects: State dicts by the names that `run.checkpointing(...)` was given. All tensors
            are on the CPU.
        metrics: What was reported at its step.
        fallbacks: Newer checkpoints that could not be used, and why.
    """

    checkpoint: CheckpointId
    objects: dict[str, Any]
    metrics: Mapping[str, float]
    fallbacks: tuple[str, ...]


def load(
    uri: str,
    names: Collection[str] | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
) -> Loaded:
    """Load a checkpoint; needs neither an agent nor a process group.

    Args:
        uri: A job's folder (its newest valid checkpoint is taken), or one checkpoint in it:
            ``s3://bucket/job``, ``/shared/job/ckpt/000000000300-000002``.
        names: Which objects to load, such as ``["model"]``: only their bytes are read. None means
            all.
        endpoint: URL of an S3-compatible server; None means the pod's or the environment's.
        region: S3 region; None means the pod's or the environment's.

    Raises:
        NoValidCheckpoint: There is none, or none that is as it was committed.
        KeyError: The checkpoint has no object of such a name.
        StoreError: The store refused or failed.
    """
    tensors: dict[str, torch.Tensor] = {}

    def into(spec: TensorSpec) -> memoryview:
        tensors[spec.name] = empty_for(spec)
        return view_of(tensors[spec.name])

    def choose(commit: Commit) -> Wanted:
        tensors.clear()
        wanted = tensors_of(commit, names)
        return lambda spec: spec.name in wanted

    restored = find(uri, into, choose, endpoint=endpoint, region=region)
    objects: Any = restored.commit.objects
    make = AsItWas(torch.device("cpu"), copy=False)
    chosen = objects["names"] if names is None else names
    return Loaded(
        checkpoint=restored.commit.id,
        objects={name: unflatten(objects[name], tensors, make) for name in chosen},
        metrics=restored.commit.metrics,
        fallbacks=tuple(f"{each.id}: {each.reason}" for each in restored.fallbacks),
    )


def load_model(
    uri: str, name: str = "model", *, endpoint: str | None = None, region: str | None = None
) -> dict[str, Any]:
    """Load the state dict of a model alone, without its optimizer.

        model.load_state_dict(load_model("s3://bucket/jobs/digits-8bcc7a00"))

    Args:
        uri: See `load`.
        name: The model's name in `run.checkpointing(...)`.
        endpoint: See `load`.
        region: See `load`.

    Raises:
        NoValidCheckpoint, KeyError, StoreError: See `load`.
    """
    state: dict[str, Any] = load(uri, [name], endpoint=endpoint, region=region).objects[name]
    return state


def find(
    uri: str,
    into: Into,
    choose: Callable[[Commit], Wanted],
    *,
    endpoint: str | None = None,
    region: str | None = None,
) -> Restored:
    """Restore what a user names, and say what had to be passed over.

    Raises:
        NoValidCheckpoint, StoreError: See `load`.
    """
    store, only = open_existing(
        uri,
        endpoint=endpoint or os.environ.get(contract.ENV_STORAGE_ENDPOINT) or None,
        region=region or os.environ.get(contract.ENV_STORAGE_REGION) or None,
    )
    restored = restore_newest(store, into, None, skip=others(store, only), choose=choose)
    if restored is None:
        raise NoValidCheckpoint(
            f"there is no checkpoint {f'of {only} ' if only else ''}under {store.uri}: "
            "give the folder of a job (it holds ckpt/), or one in its ckpt/"
        )
    for each in restored.fallbacks if only is None else ():
        log.warning("passed over %s: %s", each.id, each.reason)
    return restored


class References(dict[str, Any]):
    """Stands in for the tensors of a tree, and learns which ones it asks for."""

    def __missing__(self, name: str) -> Reference:
        made = self[name] = Reference(name)
        return made


@dataclass(frozen=True)
class Reference:
    """Stands in for one tensor, or for one array of numpy."""

    name: str

    def numpy(self) -> Reference:
        """What `unflatten` does to get an array."""
        return self

    def copy(self) -> Reference:
        """The same."""
        return self


def tensors_of(commit: Commit, names: Collection[str] | None) -> Collection[str]:
    """The names of the tensors that belong to some objects of a checkpoint.

    Raises:
        KeyError: The checkpoint has no such object.
        NoValidCheckpoint: It was not written by `headway.train`.
    """
    references = References()
    for name in object_names(commit) if names is None else names:
        unflatten(tree_of(commit, name), references)
    return references.keys()


def object_names(commit: Commit) -> list[str]:
    """The names of a checkpoint's objects.

    Raises:
        NoValidCheckpoint: It was not written by `headway.train`.
    """
    objects: Any = commit.objects
    if not isinstance(objects, dict) or "names" not in objects:
        raise NoValidCheckpoint(f"{commit.id} names no objects: it is not of a training script")
    return list(objects["names"])


def tree_of(commit: Commit, name: str) -> Any:
    """The tree of one object, see `headway.train.state.flatten`.

    Raises:
        KeyError: The checkpoint has no such object.
    """
    objects: Any = commit.objects
    if name not in object_names(commit):
        raise KeyError(f"{commit.id} holds no {name!r}; it holds {', '.join(object_names(commit))}")
    return objects[name]
