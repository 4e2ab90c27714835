"""Between torch's state dicts and what a checkpoint holds: named tensors and a JSON tree.

A state dict is a tree of dicts, lists, tuples and plain values with tensors for leaves. Tensors
leave the tree under their path (`model.fc.weight`), a reference stays behind. Nothing is pickled,
so that reading a checkpoint runs no code.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch

from headway.checkpoint.state import TensorSpec

_DTYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.int8: "I8",
    torch.int16: "I16",
    torch.int32: "I32",
    torch.int64: "I64",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.complex64: "C64",
}
_TORCH = {name: dtype for dtype, name in _DTYPES.items()}
_TENSOR, _TUPLE, _ITEMS, _NUMPY, _BYTES = "$tensor", "$tuple", "$items", "$numpy", "$bytes"


def flatten(tree: Any, path: str, tensors: dict[str, torch.Tensor]) -> Any:  # noqa: PLR0911
    """Take the tensors out of `tree`.

    Args:
        tree: A state dict, or anything inside one.
        path: Where it stands; becomes the names of its tensors.
        tensors: Receives the tensors by name. They are not copied.

    Returns:
        The rest as JSON, with references to the tensors.

    Raises:
        TypeError: something that can't be saved without pickling; says where it is.
    """
    if isinstance(tree, torch.Tensor):
        tensors[path] = tree.detach()
        return {_TENSOR: path}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Mapping):
        if all(isinstance(key, str) and not key.startswith("$") for key in tree):
            return {k: flatten(v, f"{path}.{k}", tensors) for k, v in tree.items()}
        items = [[key, flatten(v, f"{path}.{key}", tensors)] for key, v in tree.items()]
        return {_ITEMS: items}
    if isinstance(tree, list | tuple):
        parts = [flatten(v, f"{path}.{i}", tensors) for i, v in enumerate(tree)]
        return parts if isinstance(tree, list) else {_TUPLE: parts}
    if isinstance(tree, np.ndarray):
        tensors[path] = torch.from_numpy(tree)
        return {_NUMPY: path}
    if isinstance(tree, np.generic):
        return tree.item()
    if isinstance(tree, bytes):
        return {_BYTES: tree.hex()}
    raise TypeError(
        f"{path} is a {type(tree).__name__}, which a checkpoint can't hold: give it state_dict() "
        "and load_state_dict(), or keep it in plain values and tensors"
    )


def unflatten(tree: Any, tensors: Mapping[str, torch.Tensor], *, copy: bool = False) -> Any:
    """Undo `flatten`.

    Args:
        tree: What `flatten` returned.
        tensors: Tensors by name.
        copy: Whether the result gets tensors of its own.
    """

    def leaf(name: str) -> torch.Tensor:
        return tensors[name].clone() if copy else tensors[name]

    def build(tree: Any) -> Any:
        if isinstance(tree, list):
            return [build(v) for v in tree]
        if not isinstance(tree, dict):
            return tree
        if len(tree) == 1:
            ((key, value),) = tree.items()
            if (make := makers.get(key)) is not None:
                return make(value)
        return {k: build(v) for k, v in tree.items()}

    makers: dict[str, Callable[[Any], Any]] = {
        _TENSOR: leaf,
        _NUMPY: lambda name: leaf(name).numpy(),
        _TUPLE: lambda parts: tuple(build(v) for v in parts),
        _ITEMS: lambda items: {k: build(v) for k, v in items},
        _BYTES: bytes.fromhex,
    }
    return build(tree)


def spec_of(name: str, tensor: torch.Tensor) -> TensorSpec:
    """Name, dtype and shape of a tensor.

    Raises:
        TypeError: a dtype or layout that checkpoints don't know.
    """
    if tensor.dtype not in _DTYPES or tensor.layout != torch.strided:
        raise TypeError(f"{name}: tensors of {tensor.dtype} ({tensor.layout}) can't be saved")
    return TensorSpec(name=name, dtype=_DTYPES[tensor.dtype], shape=tuple(tensor.shape))


def dtype_of(spec: TensorSpec) -> torch.dtype:
    """The tensor's element type in torch."""
    return _TORCH[spec.dtype]


def empty_for(spec: TensorSpec) -> torch.Tensor:
    """Memory for a tensor that is about to be read."""
    return torch.empty(spec.shape, dtype=dtype_of(spec))


def view_of(tensor: torch.Tensor) -> memoryview:
    """The bytes of a contiguous CPU tensor, writable."""
    if not tensor.numel():
        return memoryview(bytearray())
    flat: Any = tensor.reshape(-1).view(torch.uint8).numpy()
    return memoryview(flat)
