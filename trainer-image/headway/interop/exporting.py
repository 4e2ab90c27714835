"""From a checkpoint to the formats of others.

A file appears under its name when it is complete. At most the state itself is in memory; for
safetensors not even that: ranges are read straight into the file.
"""

from __future__ import annotations

import mmap
import os
import warnings
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch.distributed.checkpoint.filesystem import FileSystemWriter
from torch.distributed.checkpoint.state_dict_saver import save

from headway.checkpoint.layout import CheckpointId
from headway.checkpoint.manifest import Commit
from headway.checkpoint.partfile import header, in_file_order
from headway.checkpoint.reader import Wanted
from headway.checkpoint.state import Fragment, TensorSpec
from headway.interop.formats import Format
from headway.interop.loading import Reference, References, find, load, tree_of
from headway.train.state import unflatten


def export(
    uri: str,
    target: Path,
    to: Format,
    names: Collection[str] | None = None,
    *,
    endpoint: str | None = None,
    region: str | None = None,
) -> CheckpointId:
    """Write a checkpoint in another format.

    Args:
        uri: A job's folder (its newest valid checkpoint is taken), or one checkpoint in it.
        target: The file, or for `dcp` the directory, to write.
        to: The format. `safetensors` holds one model's tensors; `torch` (for `torch.load`) and
            `dcp` (for `torch.distributed.checkpoint.load`) hold a dict of state dicts.
        names: Which objects; None means all (for `safetensors`: `model`).
        endpoint: See `loading.load`.
        region: See `loading.load`.

    Returns:
        Which checkpoint it was.

    Raises:
        FileExistsError: The target is there already.
        ValueError: The object does not fit the format.
        NoValidCheckpoint, KeyError, StoreError: See `loading.load`.
        OSError: The target cannot be written.
    """
    if target.exists():
        raise FileExistsError(f"{target} exists already: choose another name, or remove it")
    if to is Format.safetensors:
        if names is not None and len(names) != 1:
            raise ValueError("a safetensors file holds one object: name one, such as model")
        return _to_safetensors(uri, target, next(iter(names or ["model"])), endpoint, region)
    loaded = load(uri, names, endpoint=endpoint, region=region)
    if to is Format.torch:
        with _complete(target) as path:
            torch.save(loaded.objects, path)
    else:
        with _complete(target) as path, warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="torch.distributed is")
            save(loaded.objects, storage_writer=FileSystemWriter(path))
    return loaded.checkpoint


@contextmanager
def _complete(target: Path) -> Iterator[Path]:
    """Give a path beside `target` that takes its name when all went well."""
    target.parent.mkdir(parents=True, exist_ok=True)
    unfinished = target.with_name(f".{target.name}.unfinished-{os.getpid()}")
    try:
        yield unfinished
        unfinished.rename(target)
    except BaseException:
        _remove(unfinished)
        raise


def _remove(path: Path) -> None:
    if path.is_dir():
        for each in path.iterdir():
            _remove(each)
        path.rmdir()
    else:
        path.unlink(missing_ok=True)


def _to_safetensors(
    uri: str, target: Path, name: str, endpoint: str | None, region: str | None
) -> CheckpointId:
    with _complete(target) as path:
        file = _File(path, name)
        restored = find(uri, file.into, file.begin, endpoint=endpoint, region=region)
        file.close()
    return restored.commit.id


class _File:
    """A safetensors file that is mapped into memory and filled from there."""

    def __init__(self, path: Path, name: str) -> None:
        self._path = path
        self._name = name
        self._views: dict[str, memoryview] = {}
        self._map: mmap.mmap | None = None

    def begin(self, commit: Commit) -> Wanted:
        """Make the file for what the checkpoint has; again, if an earlier one was bad."""
        keys = _keys(commit, self._name)
        specs = {spec.name: spec for spec in commit.tensors}
        renamed = {
            key: TensorSpec(name=key, dtype=specs[name].dtype, shape=specs[name].shape)
            for key, name in keys.items()
        }
        order = in_file_order(renamed, [Fragment(k, 0, s.count) for k, s in renamed.items()])
        head = header(renamed, order, {"step": str(commit.step), "headway": str(commit.id)})
        self._make(head, sum(spec.nbytes for spec in renamed.values()))
        assert self._map is not None
        memory, at = memoryview(self._map), len(head)
        views = self._views = {}
        for fragment in order:
            end = at + renamed[fragment.name].nbytes
            views[keys[fragment.name]] = memory[at:end]
            at = end
        return lambda spec: spec.name in views

    def into(self, spec: TensorSpec) -> memoryview:
        """Where in the file a tensor goes."""
        return self._views[spec.name]

    def close(self) -> None:
        """Let go of the file."""
        self._views.clear()
        if self._map is not None:
            self._map.flush()
        self._map = None

    def _make(self, head: bytes, nbytes: int) -> None:
        with self._path.open("wb+") as file:
            file.write(head)
            file.flush()
            # Without blocks of its own a mapped file kills the process where the disk is full.
            os.posix_fallocate(file.fileno(), 0, len(head) + nbytes)
            self._map = mmap.mmap(file.fileno(), len(head) + nbytes)


def _keys(commit: Commit, name: str) -> dict[str, str]:
    """The names of an object's tensors in the checkpoint, by their keys in its state dict."""
    tree: Any = unflatten(tree_of(commit, name), References())
    if not isinstance(tree, dict) or not tree:
        raise ValueError(f"{name} has no tensors by name: export it as torch or dcp")
    others = [key for key, value in tree.items() if not isinstance(value, Reference)]
    if others:
        raise ValueError(
            f"{name} is more than tensors ({', '.join(map(str, others[:3]))}), which safetensors "
            "cannot hold: export it as torch or dcp"
        )
    return {str(key): reference.name for key, reference in tree.items()}
