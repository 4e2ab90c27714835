"""The CustomResourceDefinition of a kind, as `kubectl apply` takes it."""

from __future__ import annotations

from typing import Any

from headway_api.base import JsonSchema
from headway_api.contract import GROUP, VERSION
from headway_api.kinds import Column, Kind
from headway_api.schema import structural


def crd(kind: Kind) -> dict[str, Any]:
    """The CustomResourceDefinition (`apiextensions.k8s.io/v1`) of a kind.

    Raises:
        headway_api.schema.SchemaError: the kind's models can't become a structural schema.
    """
    names: dict[str, Any] = {
        "kind": kind.kind,
        "listKind": f"{kind.kind}List",
        "plural": kind.plural,
    }
    names |= {"singular": kind.singular, "categories": ["headway"]}
    if kind.short_names:
        names["shortNames"] = list(kind.short_names)
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{kind.plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "names": names,
            "scope": "Namespaced" if kind.namespaced else "Cluster",
            "versions": [_version(kind)],
        },
    }


def object_schema(kind: Kind) -> JsonSchema:
    """The schema of a whole object: its envelope, spec and status.

    Raises:
        headway_api.schema.SchemaError: the kind's models can't become a structural schema.
    """
    schema: JsonSchema = {
        "description": kind.description,
        "type": "object",
        "required": ["spec"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            # The name is spelled out for rules to blame; the rest is the API server's.
            "metadata": {"type": "object", "properties": {"name": {"type": "string"}}},
            "spec": structural(kind.spec),
        },
    }
    if kind.status is not None:
        schema["properties"]["status"] = structural(kind.status)
    if kind.rules:
        schema["x-kubernetes-validations"] = [rule.schema() for rule in kind.rules]
    return schema


def _version(kind: Kind) -> dict[str, Any]:
    version: dict[str, Any] = {"name": VERSION, "served": True, "storage": True}
    if kind.status is not None:
        version["subresources"] = {"status": {}}
    if kind.columns:
        version["additionalPrinterColumns"] = [_column(column) for column in kind.columns]
    return version | {"schema": {"openAPIV3Schema": object_schema(kind)}}


def _column(column: Column) -> dict[str, Any]:
    entry = {"name": column.name, "type": column.type, "jsonPath": column.path}
    optional = {"description": column.description, "priority": column.priority}
    return entry | {key: value for key, value in optional.items() if value}
