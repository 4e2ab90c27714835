"""From the formats of others to a checkpoint that a TrainingJob can resume from.

What is read stays on disk, mapped into memory where the format allows it; `dcp` is read into
memory first.
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint._nested_dict import unflatten_state_dict
from torch.distributed.checkpoint.filesystem import FileSystemReader
from torch.distributed.checkpoint.metadata import TensorStorageMetadata
from torch.distributed.checkpoint.state_dict_loader import load

from headway.checkpoint import writer
from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.reader import list_commits
from headway.checkpoint.stores import open_store
from headway.train.state import flatten, spec_of, view_of


def import_checkpoint(
    source: Path,
    uri: str,
    *,
    step: int = 0,
    generation: int = 0,
    name: str | None = None,
    endpoint: str | None = None,
    region: str | None = None,
) -> CheckpointId:
    """Write and commit a checkpoint from a file or directory of another format.

    Args:
        source: A safetensors file, a file of `torch.save` (read with `weights_only`: it runs no
            code), or a directory of `torch.distributed.checkpoint` (whose values outside tensors
            are pickled: take it only from people you trust).
        uri: The job's folder to write to. Name it in a TrainingJob's `checkpoint.resumeFrom`.
        step: Training steps that it stands for.
        generation: To number it.
        name: The object that the whole source is, such as ``model``. None: the source is a dict of
            state dicts by name; one of tensors alone is the ``model``.
        endpoint: See `open_store`.
        region: See `open_store`.

    Raises:
        FileNotFoundError: There is no such source.
        FileExistsError: The folder holds a checkpoint that a restore would prefer.
        ValueError: The source is of no known format, or not a dict.
        TypeError: It holds something that a checkpoint can't hold; says where.
        StoreError: The store refused or failed.
    """
    checkpoint = CheckpointId(generation=generation, step=step)
    objects = _by_name(_read(source), name)
    tensors: dict[str, torch.Tensor] = {}
    tree: dict[str, Any] = {"names": sorted(objects)}
    tree |= {each: flatten(state, each, tensors) for each, state in objects.items()}
    store = open_store(uri, endpoint=endpoint, region=region)
    if newer := [each for each in list_commits(store) if each >= checkpoint]:
        raise FileExistsError(
            f"{uri} already holds {newer[0]}, which a restore would prefer to {checkpoint}: "
            "choose another folder, or a higher generation"
        )
    parts = {each: (spec_of(each, tensor), _view(tensor)) for each, tensor in tensors.items()}
    receipt = writer.write_part(store, checkpoint, 0, 1, parts, {}, tree)
    writer.commit(store, checkpoint, [receipt], created=datetime.now(UTC))
    return checkpoint


def _view(tensor: torch.Tensor) -> memoryview:
    return view_of(tensor.contiguous())


def _by_name(state: Mapping[str, Any], name: str | None) -> dict[str, Any]:
    if name is not None:
        return {name: state}
    if any(isinstance(value, torch.Tensor) for value in state.values()):
        return {"model": state}
    return {key: value for key, value in state.items() if isinstance(value, Mapping)}


def _read(source: Path) -> Mapping[str, Any]:
    if not source.exists():
        raise FileNotFoundError(f"there is no {source}")
    if source.is_dir():
        if not (source / ".metadata").exists():
            raise ValueError(f"{source} is no torch.distributed.checkpoint: it has no .metadata")
        return _read_dcp(source)
    state = _read_safetensors(source) if source.suffix == ".safetensors" else _read_torch(source)
    if not isinstance(state, Mapping):
        raise ValueError(f"{source} holds a {type(state).__name__}: save a dict of state dicts")
    return state


def _read_safetensors(source: Path) -> Any:
    try:
        from safetensors import SafetensorError  # noqa: PLC0415 (only this format needs it)
        from safetensors.torch import load_file  # noqa: PLC0415
    except ImportError:
        raise ValueError("reading safetensors needs its library: pip install safetensors") from None
    try:
        return load_file(source)
    except SafetensorError as error:
        raise ValueError(f"{source} is no safetensors file: {error}") from error


def _read_torch(source: Path) -> Any:
    try:
        return torch.load(source, map_location="cpu", mmap=True, weights_only=True)
    except Exception as error:  # torch raises half a dozen types for files that are not its own
        raise ValueError(
            f"{source} cannot be read as a file of torch.save with plain tensors: "
            f"{str(error).splitlines()[0]}"
        ) from error


def _read_dcp(source: Path) -> dict[str, Any]:
    reader = FileSystemReader(source)
    metadata = reader.read_metadata()
    flat: dict[str, Any] = {
        key: torch.empty(kept.size, dtype=kept.properties.dtype)
        if isinstance(kept, TensorStorageMetadata)
        else None
        for key, kept in metadata.state_dict_metadata.items()
    }
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="torch.distributed is")
        load(flat, storage_reader=reader)
    objects = unflatten_state_dict(flat, metadata.planner_data)
    return {name: _with_numbers(state) for name, state in objects.items()}


def _with_numbers(state: Any) -> Any:
    """Undo what DCP does to an optimizer: keys that were numbers are text, empty dicts are gone."""
    if not (isinstance(state, dict) and "param_groups" in state):
        return state
    kept = state.get("state", {})
    return {**state, "state": {int(k) if str(k).isdigit() else k: v for k, v in kept.items()}}
