"""Between torch's state dicts and what a checkpoint holds: named tensors and a JSON tree.

A state dict is a tree of dicts, lists, tuples and plain values with tensors for leaves. Tensors
leave the tree under their path (`model.fc.weight`), a reference stays behind. Nothing is pickled,
so that reading a checkpoint runs no code.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from headway.checkpoint.state import TensorSpec

_NAMES = {
    "BOOL": "bool", "U8": "uint8", "I8": "int8", "I16": "int16", "I32": "int32", "I64": "int64",
    "U16": "uint16", "U32": "uint32", "U64": "uint64",
    "F16": "float16", "BF16": "bfloat16", "F32": "float32", "F64": "float64", "C64": "complex64",
    "F8_E4M3": "float8_e4m3fn", "F8_E5M2": "float8_e5m2", "F8_E8M0": "float8_e8m0fnu",
    "F8_E4M3FNUZ": "float8_e4m3fnuz", "F8_E5M2FNUZ": "float8_e5m2fnuz",
}  # fmt: skip
_TORCH: dict[str, torch.dtype] = {
    name: getattr(torch, ours) for name, ours in _NAMES.items() if hasattr(torch, ours)
}
_DTYPES = {dtype: name for name, dtype in _TORCH.items()}
_TENSOR, _STRIDE, _DEVICE = "$tensor", "$stride", "$device"
_TUPLE, _ITEMS, _COUNTER, _BYTES = "$tuple", "$items", "$counter", "$bytes"
_NUMPY, _SCALAR = "$numpy", "$scalar"


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
        name = _free(path, tensors)
        tensors[name] = tree.detach()
        return {_TENSOR: name, **_looks(tree)}
    if isinstance(tree, np.generic):  # before the plain numbers: a float64 is a float, too
        return {_SCALAR: [tree.dtype.str, tree.tobytes().hex()]}
    if tree is None or isinstance(tree, bool | int | float | str):
        return tree
    if isinstance(tree, Mapping):
        if type(tree) is Counter:
            return {_COUNTER: flatten(dict(tree), path, tensors)}
        if all(isinstance(key, str) and not key.startswith("$") for key in tree) and (
            # JSON objects are written in this order, and sums depend on it.
            list(tree) == sorted(tree)
        ):
            return {k: flatten(v, f"{path}.{k}", tensors) for k, v in tree.items()}
        items = ((flatten(k, path, tensors), f"{path}.{k}", v) for k, v in tree.items())
        return {_ITEMS: [[key, flatten(v, name, tensors)] for key, name, v in items]}
    if isinstance(tree, list | tuple):
        parts = [flatten(v, f"{path}.{i}", tensors) for i, v in enumerate(tree)]
        return parts if isinstance(tree, list) else {_TUPLE: parts}
    if isinstance(tree, np.ndarray) and tree.dtype.kind in "biufc":
        name = _free(path, tensors)
        tensors[name] = torch.from_numpy(np.array(tree, dtype=tree.dtype.newbyteorder("=")))
        return {_NUMPY: name}
    if isinstance(tree, bytes):
        return {_BYTES: tree.hex()}
    raise TypeError(
        f"{path} is a {type(tree).__name__}, which a checkpoint can't hold: give it state_dict() "
        "and load_state_dict(), or keep it in plain values and tensors"
    )


def _free(path: str, tensors: Mapping[str, torch.Tensor]) -> str:
    """A name that no other tensor has: `{1: …, "1": …}` and `{"a.b": …, "a": {"b": …}}`."""
    while path in tensors:
        path += "'"
    return path


def _looks(tensor: torch.Tensor) -> dict[str, Any]:
    """What to know of a tensor beside its values, to make one that computes alike."""
    looks: dict[str, Any] = {}
    if not tensor.is_contiguous() and _is_dense(tensor):
        looks[_STRIDE] = list(tensor.stride())
    if tensor.device.type != "cpu":
        looks[_DEVICE] = tensor.device.type
    return looks


def _is_dense(tensor: torch.Tensor) -> bool:
    """Whether the elements fill one run of memory, in whatever order."""
    return torch.empty_like(tensor, device="meta").stride() == tensor.stride()


Make = Callable[[torch.Tensor, Mapping[str, Any]], torch.Tensor]
"""Makes the tensor of a state of what a checkpoint has of it: the values, and its looks."""


def as_stored(tensor: torch.Tensor, looks: Mapping[str, Any]) -> torch.Tensor:
    """The very tensor, for whoever copies the values out of it."""
    return tensor


@dataclass(frozen=True)
class AsItWas:
    """Makes tensors like those that were saved, for whoever keeps them.

    Attributes:
        device: Where to put those that were on a GPU.
        copy: Whether the stored ones belong to somebody else.
    """

    device: torch.device
    copy: bool

    def __call__(self, tensor: torch.Tensor, looks: Mapping[str, Any]) -> torch.Tensor:
        """The tensor, of the same order in memory (as of `channels_last`)."""
        device = self.device if _DEVICE in looks else tensor.device
        if _STRIDE not in looks:
            return tensor.to(device, copy=self.copy)
        made = torch.empty_strided(tensor.shape, looks[_STRIDE], dtype=tensor.dtype, device=device)
        return made.copy_(tensor)


def unflatten(tree: Any, tensors: Mapping[str, torch.Tensor], make: Make = as_stored) -> Any:
    """Undo `flatten`.

    Args:
        tree: What `flatten` returned.
        tensors: Tensors by name.
        make: How to make tensors of those.
    """

    def build(tree: Any) -> Any:
        if isinstance(tree, list):
            return [build(v) for v in tree]
        if not isinstance(tree, dict):
            return tree
        if _TENSOR in tree:
            return make(tensors[tree[_TENSOR]], tree)
        if len(tree) == 1:
            ((key, value),) = tree.items()
            if (maker := makers.get(key)) is not None:
                return maker(value)
        return {k: build(v) for k, v in tree.items()}

    makers: dict[str, Callable[[Any], Any]] = {
        _NUMPY: lambda name: tensors[name].numpy().copy(),
        _SCALAR: lambda value: np.frombuffer(bytes.fromhex(value[1]), value[0])[0],
        _TUPLE: lambda parts: tuple(build(v) for v in parts),
        _ITEMS: lambda items: {build(k): build(v) for k, v in items},
        _COUNTER: lambda counts: Counter(build(counts)),
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
