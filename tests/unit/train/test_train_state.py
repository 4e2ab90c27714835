"""State dicts through flatten and back: nothing lost, nothing pickled."""

from __future__ import annotations

import json
from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from headway.train.rng import capture, restore
from headway.train.state import flatten, spec_of, unflatten


def through(tree: Any) -> Any:
    """What comes back after a checkpoint: the tree through JSON, the tensors by name."""
    tensors: dict[str, torch.Tensor] = {}
    objects = json.loads(json.dumps(flatten(tree, "state", tensors)))
    return unflatten(objects, {name: tensor.clone() for name, tensor in tensors.items()})


def test_a_copy_shares_no_memory() -> None:
    """An optimizer keeps the tensors that it loads, and would train in a slot's memory."""
    tensors: dict[str, torch.Tensor] = {}
    objects = flatten({"a": torch.ones(2)}, "state", tensors)
    copied = unflatten(objects, tensors, copy=True)
    tensors["state.a"].zero_()
    assert torch.equal(copied["a"], torch.ones(2))


def same(a: Any, b: Any) -> bool:
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and torch.equal(a, b)
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and all(map(same, a, b))
    return bool(a == b)


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
        {"scalar": np.float32(1.5), "raw": b"\x00\xff"},
        {"inf": float("inf"), "big": 2**80},
    ],
)
def test_trees_of_every_kind_come_back(tree: Any) -> None:
    assert same(through(tree), tree)


def test_an_ordered_dict_comes_back_in_its_order() -> None:
    tree = OrderedDict([("z", 1), ("a", 2)])
    assert list(through(tree)) == ["z", "a"]


def test_numpy_arrays_come_back_as_arrays() -> None:
    tree = {"x": np.arange(6).reshape(2, 3)}
    back = through(tree)["x"]
    assert isinstance(back, np.ndarray)
    assert (back == tree["x"]).all()


def test_what_would_need_pickling_is_refused_with_its_place() -> None:
    with pytest.raises(TypeError, match=r"state\.model\.hook is a function"):
        flatten({"model": {"hook": lambda: 0}}, "state", {})
    with pytest.raises(TypeError, match="sparse"):
        spec_of("x", torch.eye(3).to_sparse())


def test_random_generators_go_on_where_they_were() -> None:
    state = json.loads(json.dumps(capture()))
    first = (torch.rand(3), np.random.rand(), __import__("random").random())
    restore(state)
    second = (torch.rand(3), np.random.rand(), __import__("random").random())
    assert torch.equal(first[0], second[0])
    assert first[1:] == second[1:]
