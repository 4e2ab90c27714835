"""JSON that brings every value back as it was, and is still JSON to other readers.

Python's own encoder writes `Infinity`, which is not JSON (and a scheduler's "best so far" starts
as infinity), and turns tuples and number keys silently into lists and text.
"""

from __future__ import annotations

import json
import math
from typing import Annotated, cast

from pydantic import BeforeValidator, JsonValue, PlainSerializer

_FLOAT = "$float"


def encode(tree: object, path: str = "$") -> JsonValue:
    """Replace non-finite floats by ``{"$float": "inf"}`` and check everything else.

    Args:
        tree: None, bool, int, float, str, or lists and text-keyed dicts of these.
        path: where `tree` sits in the whole, for the error message.

    Raises:
        ValueError: something in the tree would not come back as it was; the message says where.
    """
    if tree is None or isinstance(tree, bool | int | str):
        return tree
    if isinstance(tree, float):
        return tree if math.isfinite(tree) else {_FLOAT: repr(tree)}
    if isinstance(tree, list):
        return [encode(item, f"{path}[{index}]") for index, item in enumerate(tree)]
    if isinstance(tree, dict):
        return {_key(key, path): encode(item, f"{path}.{key}") for key, item in tree.items()}
    raise ValueError(
        f"{path} is a {type(tree).__name__}: checkpoint state outside tensors may hold only "
        "None, bool, int, float, str, and lists and dicts of these"
    )


def decode(tree: object) -> object:
    """Undo `encode`."""
    if isinstance(tree, list):
        return [decode(item) for item in tree]
    if isinstance(tree, dict):
        if tree.keys() == {_FLOAT}:
            return float(tree[_FLOAT])
        return {key: decode(item) for key, item in tree.items()}
    return tree


def dumps(tree: object) -> bytes:
    """Return the canonical bytes of a tree: sorted keys, no spaces, ASCII, strict JSON."""
    return canonical(encode(tree))


def loads(data: bytes) -> JsonValue:
    """Undo `dumps`.

    Raises:
        ValueError: `data` is not JSON.
    """
    return cast("JsonValue", decode(json.loads(data)))


def canonical(tree: JsonValue) -> bytes:
    """Return the one byte sequence that stands for an encoded tree."""
    text = json.dumps(
        tree, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
    )
    return text.encode("ascii")


def _key(key: object, path: str) -> str:
    if not isinstance(key, str) or key == _FLOAT:
        raise ValueError(f"{path} has the key {key!r}: keys must be text other than {_FLOAT!r}")
    return key


JsonTree = Annotated[JsonValue, BeforeValidator(decode), PlainSerializer(encode, when_used="json")]
"""A pydantic field that holds a tree, and writes it as `encode` does."""
