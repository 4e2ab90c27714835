"""The generator: what pydantic writes becomes what an API server accepts."""

import json
from collections.abc import Iterator
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from headway_api.base import ApiModel, Immutable, IntOrString, ListType, PreserveUnknown, Rule
from headway_api.crd import crd
from headway_api.kinds import KINDS, Kind
from headway_api.schema import SchemaError, structural

ShortName = Annotated[str, Field(max_length=8)]
ANNOTATION_LIMIT = 262_144
LEGAL_KEYS = {
    "additionalProperties",
    "default",
    "description",
    "enum",
    "format",
    "items",
    "maximum",
    "maxItems",
    "maxLength",
    "maxProperties",
    "minimum",
    "minItems",
    "minLength",
    "oneOf",
    "pattern",
    "properties",
    "required",
    "type",
    "x-kubernetes-int-or-string",
    "x-kubernetes-list-map-keys",
    "x-kubernetes-list-type",
    "x-kubernetes-preserve-unknown-fields",
    "x-kubernetes-validations",
}


class Inner(ApiModel):
    """Text of the class."""

    name: ShortName
    """Its name."""
    size: int = 2
    """Its size."""
    note: ShortName | None = None
    """A note."""

    cel: ClassVar = (Rule("self.size > 0", "size must be positive", ".size"),)


class Outer(ApiModel):
    """A model with one field for each kind of marker."""

    plain: ShortName | None = None
    """Told over
    two lines."""
    inner: Annotated[Inner, Immutable("inner can't change")] | None = None
    """An optional model with a marker."""
    filled: Inner = Inner(name="x")
    """A model with a default."""
    listed: Annotated[list[Inner], ListType("map", ("name",)), Field(max_length=3)] | None = None
    """A list with keys."""
    anything: Annotated[dict[str, Any], PreserveUnknown()] | None = None
    """An object of Kubernetes' own."""
    amount: Annotated[int | str, IntOrString("^a$", minimum=0, max_length=3)] = 1
    """Either."""


def nodes(schema: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield schema
    for child in schema.get("properties", {}).values():
        yield from nodes(child)
    for key in ("items", "additionalProperties"):
        if key in schema:
            yield from nodes(schema[key])


def test_an_optional_field_loses_null_title_and_line_breaks() -> None:
    schema = structural(Outer)
    assert schema["properties"]["plain"] == {
        "description": "Told over two lines.",
        "type": "string",
        "maxLength": 8,
    }
    assert "required" not in schema


def test_a_model_is_inlined_with_the_field_s_text_and_the_rules_of_both() -> None:
    inner = structural(Outer)["properties"]["inner"]
    assert inner["description"] == "An optional model with a marker."
    assert inner["required"] == ["name"]
    assert inner["x-kubernetes-validations"] == [
        {"rule": "self.size > 0", "message": "size must be positive", "fieldPath": ".size"},
        {"rule": "self == oldSelf", "message": "inner can't change"},
    ]


def test_the_default_of_a_model_is_filled_in_without_its_unset_fields() -> None:
    assert structural(Outer)["properties"]["filled"]["default"] == {"name": "x", "size": 2}


def test_markers_become_kubernetes_extensions() -> None:
    fields = structural(Outer)["properties"]
    assert fields["listed"]["x-kubernetes-list-type"] == "map"
    assert fields["listed"]["x-kubernetes-list-map-keys"] == ["name"]
    assert fields["anything"] == {
        "description": "An object of Kubernetes' own.",
        "type": "object",
        "x-kubernetes-preserve-unknown-fields": True,
    }
    assert fields["amount"] == {
        "description": "Either.",
        "default": 1,
        "minimum": 0,
        "maxLength": 3,
        "pattern": "^a$",
        "x-kubernetes-int-or-string": True,
    }


def test_every_field_without_a_docstring_is_named() -> None:
    class Silent(ApiModel):
        told: int
        """Told."""
        first: int
        inside: list[Inner] = Field(max_length=1)

    with pytest.raises(SchemaError, match=r"\.first: has no docstring\n\.inside: has no docstring"):
        structural(Silent)


def test_every_size_without_a_bound_is_named() -> None:
    class Endless(ApiModel):
        text: str
        """Text."""
        items: list[ShortName]
        """Items."""
        entries: Annotated[dict[str, str], Field(max_length=2)]
        """Entries."""

    with pytest.raises(SchemaError) as caught:
        structural(Endless)
    assert str(caught.value).splitlines()[1:] == [
        ".text: has no maxLength",
        ".items: has no maxItems",
        ".entries{}: has no maxLength",
    ]


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_plain_kubectl_apply_can_store_the_crd_in_its_annotation(kind: Kind) -> None:
    size = len(json.dumps(crd(kind), separators=(",", ":")))
    assert size < ANNOTATION_LIMIT


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_a_crd_has_structural_keys_only(kind: Kind) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for node in nodes(schema):
        assert set(node) <= LEGAL_KEYS, node
        free = node.get("x-kubernetes-preserve-unknown-fields")
        assert "type" in node or node.get("x-kubernetes-int-or-string") or free, node
        assert None not in node.values(), node
        assert not ("properties" in node and "additionalProperties" in node), node


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.kind)
def test_every_column_shows_a_field_that_exists(kind: Kind) -> None:
    schema = crd(kind)["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for column in kind.columns:
        node = schema
        if column.path == ".metadata.creationTimestamp":
            continue
        for step in column.path.lstrip(".").split("."):
            name = step.removesuffix("[0]")
            assert name in node["properties"], column
            node = node["properties"][name]
            if name != step:
                node = node["items"]
        assert node["type"] == column.type, column
