"""Label selectors, as the API server reads them.

Grammar: https://kubernetes.io/docs/concepts/overview/working-with-objects/labels/#label-selectors
"""

import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import TypeAlias

from .client import ApiError, Object

Predicate: TypeAlias = Callable[[Mapping[str, str]], bool]

_SET = re.compile(r"^(?P<key>\S+)\s+(?P<operator>in|notin)\s*\((?P<values>[^()]*)\)$")
_EQUALITY = re.compile(r"^(?P<key>[^\s=!]+)\s*(?P<operator>==?|!=)\s*(?P<value>[^\s=!]*)$")
_EXISTS = re.compile(r"^(?P<absent>!)?\s*(?P<key>[^\s=!(),]+)$")
_BETWEEN = re.compile(r",(?![^(]*\))")


def matches(selector: str | None, item: Object) -> bool:
    """Whether an object's labels fit a selector; no selector fits everything.

    Raises:
        ApiError: 400, the selector cannot be read.
    """
    if not selector:
        return True
    labels = item["metadata"].get("labels") or {}
    return all(holds(labels) for holds in _parse(selector))


@lru_cache(maxsize=256)
def _parse(selector: str) -> tuple[Predicate, ...]:
    return tuple(_requirement(part.strip()) for part in _BETWEEN.split(selector))


def _requirement(text: str) -> Predicate:
    if found := _SET.match(text):
        return _among(
            found["key"],
            frozenset(value.strip() for value in found["values"].split(",")),
            wanted=found["operator"] == "in",
        )
    if found := _EQUALITY.match(text):
        return _among(found["key"], frozenset({found["value"]}), wanted=found["operator"] != "!=")
    if found := _EXISTS.match(text):
        return _present(found["key"], wanted=not found["absent"])
    raise ApiError(400, "BadRequest", f"unable to parse label selector requirement {text!r}")


def _among(key: str, values: frozenset[str], *, wanted: bool) -> Predicate:
    # An absent label differs from every value.
    return lambda labels: (labels.get(key) in values) is wanted


def _present(key: str, *, wanted: bool) -> Predicate:
    return lambda labels: (key in labels) is wanted
