from __future__ import annotations

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway.checkpoint.jsontree import dumps, loads

leaves = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text()
keys = st.text().filter(lambda key: key != "$float")
trees = st.recursive(
    leaves, lambda inner: st.lists(inner) | st.dictionaries(keys, inner), max_leaves=12
)


@given(trees)
def test_every_tree_comes_back_as_it_was_and_is_strict_json(tree: object) -> None:
    data = dumps(tree)
    assert repr(loads(data)) == repr(loads(dumps(loads(data))))
    assert loads(data) == tree
    json.loads(data, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_not_a_number_comes_back() -> None:
    assert math.isnan(loads(dumps({"a": [math.nan]}))["a"][0])  # type: ignore[call-overload,index,arg-type]


@pytest.mark.parametrize(
    ("tree", "where"),
    [
        ({"a": [1, (2, 3)]}, r"\$\.a\[1\] is a tuple"),
        ({"a": {1: 2}}, r"\$\.a has the key 1"),
        ({"$float": 1}, "has the key"),
        ([b"raw"], r"\$\[0\] is a bytes"),
    ],
)
def test_what_would_change_on_the_way_is_refused_with_its_place(tree: object, where: str) -> None:
    with pytest.raises(ValueError, match=where):
        dumps(tree)
