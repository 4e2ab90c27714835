"""Merge patch against the examples of RFC 7396, and what apply leaves and takes."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headway_operator.cluster.client import Object
from headway_operator.cluster.patching import apply, conflicting_fields, merge_patch

RFC_7396 = [
    ({"a": "b"}, {"a": "c"}, {"a": "c"}),
    ({"a": "b"}, {"b": "c"}, {"a": "b", "b": "c"}),
    ({"a": "b"}, {"a": None}, {}),
    ({"a": "b", "b": "c"}, {"a": None}, {"b": "c"}),
    ({"a": ["b"]}, {"a": "c"}, {"a": "c"}),
    ({"a": "c"}, {"a": ["b"]}, {"a": ["b"]}),
    ({"a": {"b": "c"}}, {"a": {"b": "d", "c": None}}, {"a": {"b": "d"}}),
    ({"a": [{"b": "c"}]}, {"a": [1]}, {"a": [1]}),
    (["a", "b"], ["c", "d"], ["c", "d"]),
    ({"a": "b"}, ["c"], ["c"]),
    ({"a": "foo"}, None, None),
    ({"a": "foo"}, "bar", "bar"),
    ({"e": None}, {"a": 1}, {"e": None, "a": 1}),
    ([1, 2], {"a": "b", "c": None}, {"a": "b"}),
    ({}, {"a": {"bb": {"ccc": None}}}, {"a": {"bb": {}}}),
]

values = st.recursive(
    st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2),
    lambda children: st.dictionaries(st.sampled_from("abc"), children, max_size=3),
    max_leaves=8,
)
objects = st.dictionaries(st.sampled_from("abc"), values, max_size=3)


@pytest.mark.parametrize(("target", "patch", "expected"), RFC_7396)
def test_merge_patch_does_what_the_rfc_says(target: Any, patch: Any, expected: Any) -> None:
    assert merge_patch(target, patch) == expected


@given(target=objects, patch=objects)
def test_merge_patch_changes_neither_argument_and_holds_when_repeated(
    target: Any, patch: Any
) -> None:
    before = json.dumps([target, patch])
    once = merge_patch(target, patch)
    assert merge_patch(once, patch) == once
    assert json.dumps([target, patch]) == before


@given(live=objects, first=objects, second=objects)
def test_apply_changes_no_argument_and_leaves_what_was_applied(
    live: Any, first: Any, second: Any
) -> None:
    before = json.dumps([live, first, second])
    result = apply(live, applied=first, desired=second, others=[])
    assert conflicting_fields(second, [result]) == []
    assert json.dumps([live, first, second]) == before


@given(first=objects)
def test_apply_of_nothing_takes_back_all_that_one_manager_brought(first: Any) -> None:
    made = apply({"kept": 1}, applied={}, desired=first, others=[])
    assert apply(made, applied=first, desired={}, others=[]) == {"kept": 1}


def test_apply_keeps_fields_that_another_manager_applied_too() -> None:
    live = {"data": {"mine": 1, "shared": 2}}
    others = [{"data": {"shared": 2}}]
    result = apply(live, applied=live, desired={}, others=others)
    assert result == {"data": {"shared": 2}}


def test_conflicts_are_named_by_their_path() -> None:
    desired = {"data": {"a": 1, "b": 2}, "labels": {"x": "y"}}
    others: list[Object] = [{"data": {"a": 1, "b": 3}}, {"labels": {"x": "z"}}]
    assert conflicting_fields(desired, others) == ["data.b", "labels.x"]
