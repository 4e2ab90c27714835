"""What an API server does with a CRD's schema, without one: prune, default, validate.

Local mode and the simulated cluster refuse what a real API server refuses, in the same words
(the texts are those of Kubernetes 1.37). tests/api/test_crds.py holds both to one table of
manifests. The difference: unknown fields are always an error (as `kubectl apply` asks for), and
the error names the field that was probably meant.

A walk of our own, not the jsonschema package: that one knows neither defaults nor list types
nor rules, and none of its texts are Kubernetes'.
"""

from __future__ import annotations

import copy
import json
import operator
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from difflib import get_close_matches
from functools import cache
from typing import TYPE_CHECKING, Any

from headway_api.base import JsonSchema
from headway_api.contract import API_VERSION
from headway_api.crd import object_schema
from headway_api.kinds import Kind

if TYPE_CHECKING:
    from cel import Program

Object = dict[str, Any]


@dataclass(frozen=True)
class Cause:
    """One thing that is wrong with an object.

    Attributes:
        field: Path of the field, e.g. `spec.workers.replicas`.
        message: What is wrong with it.
    """

    field: str
    message: str

    def __str__(self) -> str:
        return f"{self.field}: {self.message}"


class ValidationError(Exception):
    """An object breaks its schema; the text reads as kubectl's would.

    Attributes:
        causes: Everything that is wrong with it.
    """

    def __init__(self, kind: str, name: str, causes: list[Cause]) -> None:
        self.causes = causes
        lines = [str(cause) for cause in causes]
        text = f" {lines[0]}" if len(lines) == 1 else "".join(f"\n* {line}" for line in lines)
        super().__init__(f'The {kind} "{name}" is invalid:{text}')


def admit(kind: Kind, new: Mapping[str, Any], old: Mapping[str, Any] | None = None) -> Object:
    """What the API server would store of a written object: nulls pruned, defaults filled in.

    Args:
        kind: What the object is said to be.
        new: The object as written. It is not changed.
        old: The stored object that it replaces, for rules on changes; None on creation.

    Raises:
        ValidationError: it breaks the schema or a rule, or has a field that is not known.
        ImportError: the CEL package is missing; the text says how to get it.
    """
    schema = _schema(kind)
    unknown: list[Cause] = []
    full: Object = _complete(new, schema, "", unknown)
    # As on the server, rules see well-formed objects only.
    causes = [*unknown, *_envelope(kind, full), *_check(full, schema, "")]
    if not causes:
        stored = None if old is None else _complete(old, schema, "", [])
        causes = list(_broken_rules(full, stored, schema, ""))
    if causes:
        name = full["metadata"].get("name", "") if isinstance(full.get("metadata"), dict) else ""
        raise ValidationError(kind.kind, str(name), causes)
    return full


@cache
def _schema(kind: Kind) -> JsonSchema:
    schema = object_schema(kind)
    # The API server checks its own metadata; here it passes as it is.
    schema["properties"]["metadata"]["x-kubernetes-preserve-unknown-fields"] = True
    return schema


def _envelope(kind: Kind, value: Object) -> Iterator[Cause]:
    for field, expected in (("apiVersion", API_VERSION), ("kind", kind.kind)):
        if value.get(field) != expected:
            given = json.dumps(value.get(field, ""))
            yield Cause(field, f'Unsupported value: {given}: supported values: "{expected}"')
    metadata = value.get("metadata")
    if not isinstance(metadata, dict) or not metadata.get("name"):
        yield Cause("metadata.name", "Required value: name or generateName is required")


# --- pruning and defaults --------------------------------------------------------------------


def _complete(value: Any, schema: JsonSchema, path: str, unknown: list[Cause]) -> Any:
    """A copy without nulls, with defaults; what the schema does not know lands in `unknown`."""
    if isinstance(value, list) and "items" in schema:
        items = enumerate(value)
        return [_complete(v, schema["items"], f"{path}[{i}]", unknown) for i, v in items]
    if not isinstance(value, Mapping):
        return copy.deepcopy(value)
    if "additionalProperties" in schema:
        inner = schema["additionalProperties"]
        return {k: _complete(v, inner, _join(path, k), unknown) for k, v in value.items()}
    if "properties" not in schema or schema.get("x-kubernetes-preserve-unknown-fields"):
        return copy.deepcopy(dict(value))
    known = schema["properties"]
    unknown += [_unknown(path, name, known) for name in value if name not in known]
    given = {name: item for name, item in value.items() if item is not None and name in known}
    defaults = {name: child["default"] for name, child in known.items() if "default" in child}
    return {
        name: _complete(item, known[name], _join(path, name), unknown)
        for name, item in (defaults | given).items()
    }


def _unknown(path: str, name: str, known: Mapping[str, JsonSchema]) -> Cause:
    close = get_close_matches(name, known, n=1)
    hint = f'did you mean "{close[0]}"?' if close else f"known fields: {', '.join(sorted(known))}"
    field = _join(path, name)
    return Cause(field, f'unknown field "{field}": {hint}')


# --- the structural part -----------------------------------------------------------------------

_TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str,
    "integer": int,
    "number": (int, float),
    "boolean": bool,
    "array": list,
    "object": dict,
    "integer,string": (int, str),
}
_JSON_NAMES = {str: "string", bool: "boolean", int: "integer", float: "number", list: "array"}
_JSON_NAMES |= {dict: "object", type(None): "null"}


@dataclass(frozen=True)
class _Bound:
    """One keyword of the schema: the types it is asked of, when it is broken, what is said."""

    types: tuple[type, ...]
    broken: Callable[[Any, Any], bool]
    text: str


_ENUM = "Unsupported value: {value}: supported values: {limit}"
_BODY = "Invalid value: {value}: {path} in body should "
_FORMAT = "Invalid value: {value}: {path} in body must be of type {limit}: {value}"
_FEW = "Invalid value: {size}: {path} in body should have at least {limit} items"
_MANY = "Too many: {size}: must have at most {limit} items"
_LONG = "Too long: may not be more than {limit} bytes"
_BOUNDS = {
    "enum": _Bound((str,), lambda v, limit: v not in limit, _ENUM),
    "minimum": _Bound((int,), operator.lt, _BODY + "be greater than or equal to {limit}"),
    "maximum": _Bound((int,), operator.gt, _BODY + "be less than or equal to {limit}"),
    "minLength": _Bound((str,), lambda v, n: len(v) < n, _BODY + "be at least {limit} chars long"),
    "maxLength": _Bound((str,), lambda v, n: len(v) > n, _LONG),
    # Our patterns are anchored; fullmatch, because Python's $ also stands before a last newline.
    "pattern": _Bound((str,), lambda v, p: not re.fullmatch(p, v), _BODY + "match '{limit}'"),
    # `date-time` is the only format that our models have.
    "format": _Bound((str,), lambda v, _: not _is_time(v), _FORMAT),
    "minItems": _Bound((list,), lambda v, n: len(v) < n, _FEW),
    "maxItems": _Bound((list,), lambda v, n: len(v) > n, _MANY),
    "maxProperties": _Bound((dict,), lambda v, n: len(v) > n, _MANY),
}


def _check(value: Any, schema: JsonSchema, path: str) -> Iterator[Cause]:
    if "type" not in schema and schema.get("x-kubernetes-preserve-unknown-fields"):
        return
    expected = _expected_type(schema)
    fits = isinstance(value, _TYPES[expected])
    if not fits or (isinstance(value, bool) and expected != "boolean"):
        given = f'"{_JSON_NAMES.get(type(value), type(value).__name__)}"'
        text = f"Invalid value: {given}: {path} in body must be of type {expected}: {given}"
        yield Cause(path, text)
        return
    yield from _broken_bounds(value, schema, path)
    if isinstance(value, list):
        yield from _duplicates(value, schema, path)
    if isinstance(value, dict):
        missing = [name for name in schema.get("required", ()) if name not in value]
        yield from (Cause(_join(path, name), "Required value") for name in missing)
    if "oneOf" in schema and isinstance(value, dict):
        yield from _not_one(value, schema["oneOf"], path)
    for step, item, inner in _members(value, schema):
        yield from _check(item, inner, _join(path, step))


def _not_one(value: Object, options: list[JsonSchema], path: str) -> Iterator[Cause]:
    found = [name for option in options for name in option["required"] if name in value]
    if len(found) != 1:
        valid = f"valid indexes: {found}" if found else "none valid"
        text = f"{path} must validate one and only one schema (oneOf). Found {valid}"
        yield Cause(path, f"Invalid value: {text}")


def _expected_type(schema: JsonSchema) -> str:
    int_or_string = schema.get("x-kubernetes-int-or-string")
    return "integer,string" if int_or_string else str(schema["type"])


def _broken_bounds(value: Any, schema: JsonSchema, path: str) -> Iterator[Cause]:
    for keyword, bound in _BOUNDS.items():
        if keyword not in schema or not isinstance(value, bound.types):
            continue
        limit = schema[keyword]
        if bound.broken(value, limit):
            size = len(value) if isinstance(value, str | list | dict) else 0
            shown = ", ".join(map(json.dumps, limit)) if isinstance(limit, list) else limit
            text = bound.text.format(value=json.dumps(value), path=path, limit=shown, size=size)
            yield Cause(path, text)


def _is_time(value: str) -> bool:
    """Whether this is RFC 3339, which wants the `T` and the zone that ISO 8601 can do without."""
    try:
        return "T" in value and datetime.fromisoformat(value).tzinfo is not None
    except ValueError:
        return False


def _duplicates(value: list[Any], schema: JsonSchema, path: str) -> Iterator[Cause]:
    kind = schema.get("x-kubernetes-list-type")
    if kind not in {"set", "map"}:
        return
    seen: list[Any] = []
    for index, item in enumerate(value):
        key = _map_key(item, schema) if kind == "map" else item
        if key in seen:
            text = json.dumps(key, separators=(",", ":"))
            yield Cause(f"{path}[{index}]", f"Duplicate value: {text}")
        seen.append(key)


def _map_key(item: Any, schema: JsonSchema) -> Any:
    keys = schema["x-kubernetes-list-map-keys"]
    return {key: item.get(key) for key in keys} if isinstance(item, dict) else item


def _members(value: Any, schema: JsonSchema) -> Iterator[tuple[str, Any, JsonSchema]]:
    """What lies directly inside a value: its step in the path, itself, its schema."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield f"[{index}]", item, schema["items"]
    if isinstance(value, dict):
        known = schema.get("properties", {})
        for name, item in value.items():
            inner = known.get(name, schema.get("additionalProperties"))
            if inner is not None:
                yield name, item, inner


# --- rules -------------------------------------------------------------------------------------


def _broken_rules(value: Any, old: Any, schema: JsonSchema, path: str) -> Iterator[Cause]:
    """Rules of a value and of all that lies in it; `old` is None where nothing stood before."""
    for rule in schema.get("x-kubernetes-validations", ()):
        program = _program(rule["rule"])
        if old is None and "oldSelf" in program.variables():
            continue
        if program.execute({"self": value, "oldSelf": old}) is not True:
            field = _join(path, rule.get("fieldPath", ""))
            given = "" if isinstance(value, dict | list) else f"{json.dumps(value)}: "
            yield Cause(field, f"Invalid value: {given}{rule['message']}")
    for step, item, inner in _members(value, schema):
        before = _counterpart(old, step, item, schema)
        yield from _broken_rules(item, before, inner, _join(path, step))


def _counterpart(old: Any, step: str, item: Any, schema: JsonSchema) -> Any:
    """The old value that a new one follows. Items of a list have one only by their map keys."""
    if isinstance(old, dict):
        return old.get(step)
    if isinstance(old, list) and schema.get("x-kubernetes-list-type") == "map":
        key = _map_key(item, schema)
        return next((other for other in old if _map_key(other, schema) == key), None)
    return None


@cache
def _program(rule: str) -> Program:
    try:
        import cel  # noqa: PLC0415 (a cluster's operator never gets here: its API server checks)
    except ImportError as missing:
        text = "checking manifests without a cluster needs CEL: pip install 'headway[local]'"
        raise ImportError(text) from missing
    return cel.compile(rule)


def _join(path: str, step: str) -> str:
    """A path and one more step: `a` and `b` or `.b` make `a.b`, `a` and `[0]` make `a[0]`."""
    if not path or step.startswith("[") or not step:
        return path + step.removeprefix("." if not path else "")
    return f"{path}.{step.removeprefix('.')}"
