"""State dicts through flatten and back: nothing lost, nothing pickled."""

from __future__ import annotations

from collections import Counter, OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.checkpoint.jsontree import dumps, loads
from headway.train.state import AsItWas, flatten, spec_of, unflatten


def through(tree: Any) -> Any:
    """What comes back after a checkpoint: the tree through JSON, the tensors by name."""
    tensors: dict[str, torch.Tensor] = {}
    objects = loads(dumps(flatten(tree, "state", tensors)))
    return unflatten(objects, {name: tensor.clone() for name, tensor in tensors.items()})


def test_a_copy_shares_no_memory() -> None:
    """An optimizer keeps the tensors that it loads, and would train in a slot's memory."""
    tensors: dict[str, torch.Tensor] = {}
    objects = flatten({"a": torch.ones(2), "b": np.ones(2)}, "state", tensors)
    copied = unflatten(objects, tensors, AsItWas(torch.device("cpu"), copy=True))
    for tensor in tensors.values():
        tensor.zero_()
    assert torch.equal(copied["a"], torch.ones(2))
    assert copied["b"].tolist() == [1, 1]


def test_the_order_in_memory_comes_back_for_who_keeps_the_tensor() -> None:
    """Kernels may round differently where a state's order is not its parameter's."""
    tensors: dict[str, torch.Tensor] = {}
    image = torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last)
    gaps = torch.arange(12.0)[::2]
    objects = loads(dumps(flatten({"image": image, "gaps": gaps}, "state", tensors)))
    stored = {name: tensor.contiguous() for name, tensor in tensors.items()}
    back = unflatten(objects, stored, AsItWas(torch.device("cpu"), copy=False))
    assert back["image"].stride() == image.stride()
    assert torch.equal(back["image"], image)
    assert torch.equal(back["gaps"], gaps)


def test_what_was_on_a_gpu_goes_there_again() -> None:
    """A hand-written average has its tensors replaced by those that it loads."""
    make = AsItWas(torch.device("meta"), copy=False)
    back = unflatten({"a": {"$tensor": "a", "$device": "cuda"}}, {"a": torch.ones(2)}, make)
    assert back["a"].device.type == "meta"


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and all(map(same, a, b))
    return type(a) is type(b) and (bool(a == b) or a is b)


def test_an_optimizers_state_comes_back() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert same(through(optimizer.state_dict()), optimizer.state_dict())


@pytest.mark.parametrize(
    "tree",
    [
        {"a": (1, 2.5, None, True), "b": [torch.zeros(2, dtype=torch.bfloat16)]},
        {1: "x", 2: {"y": torch.tensor(3)}},
        {"$tensor": "a user's own key"},
        {"half": torch.ones(2, 3, dtype=torch.float16), "flags": torch.tensor([True, False])},
        {"empty": torch.zeros(0, 4)},
        {"raw": b"\x00\xff", "numpy": [np.float32(0.1), np.float64(0.1), np.int8(-3), np.True_]},
        {("a", 1): torch.ones(1), "a": {"b": torch.ones(2)}, "a.b": torch.zeros(1)},
        {1: torch.ones(1), "1": torch.zeros(1), None: 2},
        {"milestones": Counter([3, 3, 7])},
        {
            "small": torch.ones(2).to(torch.float8_e4m3fn).view(torch.uint8),
            "u": torch.ones(2).to(torch.uint16),
        },
        {"inf": float("inf"), "big": 2**80},
    ],
)
def test_trees_of_every_kind_come_back(tree: Any) -> None:
    assert same(through(tree), tree)


def test_an_ordered_dict_comes_back_in_its_order() -> None:
    tree = OrderedDict([("z", 1), ("a", {"y": torch.ones(1), "b": 2})])
    back = through(tree)
    assert list(back) == ["z", "a"]
    assert list(back["a"]) == ["y", "b"]


def test_numpy_arrays_come_back_as_arrays() -> None:
    tree = {"x": np.arange(6).reshape(2, 3)[::-1], "y": np.zeros(3, dtype="<f2")}
    back = through(tree)
    for name, array in tree.items():
        assert isinstance(back[name], np.ndarray)
        assert back[name].dtype == array.dtype
        assert (back[name] == array).all()


def test_what_would_need_pickling_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"state\.model\.hook is a function"):
        flatten({"model": {"hook": lambda: 0}}, "state", {})
    with pytest.raises(TypeError, match=r"state\.words is a ndarray"):
        flatten({"words": np.array(["a"])}, "state", {})
    with pytest.raises(TypeError, match="sparse"):
        spec_of("x", torch.eye(3).to_sparse())
