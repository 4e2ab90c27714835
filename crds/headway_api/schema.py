"""From a pydantic model to the structural schema that Kubernetes wants of a CRD.

Pydantic writes JSON Schema; the markers of `headway_api.base` add the `x-kubernetes-*` keys to
it. This module rewrites the result into the subset that API servers accept: no references, no
`null`, no titles, each field described, each size bounded.

Source: https://kubernetes.io/docs/tasks/extend-kubernetes/custom-resources/
custom-resource-definitions/#specifying-a-structural-schema
"""

from __future__ import annotations

from collections.abc import Iterator

from headway_api.base import ApiModel, JsonSchema

_ORDER = (
    "description",
    "type",
    "format",
    "default",
    "enum",
    "minimum",
    "maximum",
    "minLength",
    "maxLength",
    "pattern",
    "minItems",
    "maxItems",
    "maxProperties",
    "items",
    "additionalProperties",
    "required",
    "oneOf",
    "properties",
)
_BOUND = {"string": "maxLength", "array": "maxItems"}
_RULES = "x-kubernetes-validations"


class SchemaError(ValueError):
    """A model can't be put into a CRD; the text lists every field at fault."""


def structural(model: type[ApiModel]) -> JsonSchema:
    """The structural schema of a model, with references inlined.

    Raises:
        SchemaError: a field has no docstring, or a string, list or map has no upper bound
            (unbounded sizes exceed the API server's cost budget for CEL rules).
    """
    raw = model.model_json_schema(by_alias=True, mode="validation")
    schema = _inline(raw, raw.get("$defs", {}))
    problems = [*_undescribed(schema, ""), *_unbounded(schema, "")]
    if problems:
        text = f"{model.__name__} can't become a schema:\n" + "\n".join(problems)
        raise SchemaError(text)
    return schema


def _inline(node: JsonSchema, defs: JsonSchema) -> JsonSchema:
    node = _resolve(node, defs)
    schema = {key: node[key] for key in _ORDER if key in node}
    schema |= {key: value for key, value in node.items() if key.startswith("x-kubernetes-")}
    if "description" in schema:
        schema["description"] = " ".join(schema["description"].split())
    if "default" in schema:
        schema["default"] = _without_null(schema["default"])
        if schema["default"] is None:
            del schema["default"]
    for key in ("items", "additionalProperties"):
        if key in schema:
            schema[key] = _inline(schema[key], defs)
    if "properties" in schema:
        schema["properties"] = {
            name: _inline(child, defs) for name, child in schema["properties"].items()
        }
    return schema


def _resolve(node: JsonSchema, defs: JsonSchema) -> JsonSchema:
    """Replace a reference, or the union of a type with null, by what it stands for."""
    while (inner := _referred(node, defs)) is not None:
        outer = {key: value for key, value in node.items() if key not in {"$ref", "anyOf"}}
        rules = [*inner.get(_RULES, ()), *outer.get(_RULES, ())]
        node = inner | outer | ({_RULES: rules} if rules else {})
    if isinstance(node.get("additionalProperties"), bool):
        # A structural schema prunes unknown fields by itself and forbids to say so.
        node = {key: value for key, value in node.items() if key != "additionalProperties"}
    return node


def _referred(node: JsonSchema, defs: JsonSchema) -> JsonSchema | None:
    """What a `$ref` names, or the T of a `T | None`; None when the node is neither."""
    if "$ref" in node:
        named: JsonSchema = defs[node["$ref"].rpartition("/")[2]]
        return named
    members = [member for member in node.get("anyOf", ()) if member != {"type": "null"}]
    return members[0] if len(members) == 1 else None


def _without_null(value: object) -> object:
    if isinstance(value, dict):
        return {key: _without_null(item) for key, item in value.items() if item is not None}
    return value


def _undescribed(schema: JsonSchema, path: str) -> Iterator[str]:
    for name, child in schema.get("properties", {}).items():
        if not child.get("description"):
            yield f"{path}.{name}: has no docstring"
    for step, child in _children(schema):
        yield from _undescribed(child, path + step)


def _unbounded(schema: JsonSchema, path: str) -> Iterator[str]:
    bound = _BOUND.get(schema.get("type", ""))
    if "additionalProperties" in schema:
        bound = "maxProperties"
    if bound and bound not in schema and "enum" not in schema:
        yield f"{path or '.'}: has no {bound}"
    for step, child in _children(schema):
        yield from _unbounded(child, path + step)


def _children(schema: JsonSchema) -> Iterator[tuple[str, JsonSchema]]:
    for name, child in schema.get("properties", {}).items():
        yield f".{name}", child
    if "items" in schema:
        yield "[]", schema["items"]
    if "additionalProperties" in schema:
        yield "{}", schema["additionalProperties"]
