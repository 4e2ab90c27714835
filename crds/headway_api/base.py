"""What all API models share: the base class, CEL rules, list types and bounded strings.

The markers say what Kubernetes' schemas know and JSON Schema does not. Each writes itself into
pydantic's JSON Schema (`__get_pydantic_json_schema__`); `headway_api.schema` makes a structural
schema of the whole.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, GetJsonSchemaHandler
from pydantic.alias_generators import to_camel
from pydantic_core import CoreSchema

JsonSchema = dict[str, Any]


@dataclass(frozen=True)
class Rule:
    """A CEL rule (`x-kubernetes-validations`) of a model.

    Attributes:
        cel: The expression over `self` (and `oldSelf` for a transition rule).
        message: What the user reads; it says what to change.
        field: Path of the field to blame, e.g. `.minReplicas`; empty for the object itself.
    """

    cel: str
    message: str
    field: str = ""

    def schema(self) -> JsonSchema:
        """This rule as an item of `x-kubernetes-validations`."""
        schema = {"rule": self.cel, "message": self.message}
        return schema | ({"fieldPath": self.field} if self.field else {})


@dataclass(frozen=True)
class ListType:
    """Merge strategy of a list for server-side apply (`x-kubernetes-list-type`)."""

    kind: Literal["atomic", "set", "map"]
    keys: tuple[str, ...] = ()

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        schema = handler(core) | {"x-kubernetes-list-type": self.kind}
        return schema | ({"x-kubernetes-list-map-keys": list(self.keys)} if self.keys else {})


@dataclass(frozen=True)
class Immutable:
    """Marks a field that can't change once it is set; becomes a transition rule.

    The rule is not asked when an optional field appears or goes: that takes a rule of the model
    above it, `has(self.x) == has(oldSelf.x)`.
    """

    message: str

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        rule = Rule("self == oldSelf", self.message)
        return handler(core) | {"x-kubernetes-validations": [rule.schema()]}


@dataclass(frozen=True)
class PreserveUnknown:
    """Marks a field whose content is Kubernetes' own and checked when pods are made."""

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        return {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


@dataclass(frozen=True)
class IntOrString:
    """Marks a value that may be written as an integer or a string (`cpu: 4` or `cpu: 500m`).

    The pattern holds for strings, the minimum for integers: JSON Schema asks each bound only of
    the type that it is made for.
    """

    pattern: str
    minimum: int
    max_length: int

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        # No `anyOf` of the two types: it says nothing more, and triples the errors of a float.
        return {
            "x-kubernetes-int-or-string": True,
            "minimum": self.minimum,
            "maxLength": self.max_length,
            "pattern": self.pattern,
        }


@dataclass(frozen=True)
class AnyScalar:
    """Marks a value that may be a string, a number or a boolean.

    A structural schema has no such type, so API servers take anything here, and so do we: who reads
    it can say better what is wrong than an object that can't be read.
    """

    def __get_pydantic_json_schema__(
        self, core: CoreSchema, handler: GetJsonSchemaHandler
    ) -> JsonSchema:
        return {"x-kubernetes-preserve-unknown-fields": True}


class ApiModel(BaseModel):
    """Base of all API models: camelCase on the wire, unknown fields refused, immutable.

    Field descriptions are the docstrings below the fields; they become the text of
    `kubectl explain`.
    """

    model_config = ConfigDict(
        alias_generator=to_camel,
        populate_by_name=True,
        extra="forbid",
        frozen=True,
        use_attribute_docstrings=True,
    )
    cel: ClassVar[tuple[Rule, ...]] = ()
    one_of: ClassVar[tuple[str, ...]] = ()
    """Fields (as on the wire) of which exactly one has to be set."""

    @classmethod
    def __get_pydantic_json_schema__(
        cls, core_schema: CoreSchema, handler: GetJsonSchemaHandler, /
    ) -> JsonSchema:
        schema = handler(core_schema)
        own = handler.resolve_ref_schema(schema)
        if cls.cel:
            own["x-kubernetes-validations"] = [rule.schema() for rule in cls.cel]
        if cls.one_of:
            own["oneOf"] = [{"required": [name]} for name in cls.one_of]
        return schema

    def wire(self) -> dict[str, object]:
        """This object as it goes over the wire: camelCase, nothing that is unset."""
        return self.model_dump(mode="json", by_alias=True, exclude_none=True)


class StatusModel(ApiModel):
    """Base of status models: a newer operator may have written fields unknown to us."""

    model_config = ConfigDict(extra="ignore")


Quantity = Annotated[
    int | str,
    IntOrString(
        r"^[0-9]+(\.[0-9]+)?(m|k|M|G|T|P|E|Ki|Mi|Gi|Ti|Pi|Ei|[eE][+-]?[0-9]+)?$",
        minimum=0,
        max_length=64,
    ),
]
"""An amount such as `500m`, `4` or `16Gi`; never negative."""

Number = Annotated[float, Field(allow_inf_nan=False)]
"""A number that people write and nobody computes, such as the bound of a range: `1e-4`. What we
compute is a `Decimal`."""
Scalar = Annotated[Any, AnyScalar()]
"""A string, number or boolean as it was written: so it is meant, and who reads it checks that."""

Name = Annotated[
    str, Field(min_length=1, max_length=63, pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$")
]
SubdomainName = Annotated[
    str, Field(min_length=1, max_length=253, pattern=r"^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$")
]
ShortText = Annotated[str, Field(max_length=256)]
Text = Annotated[str, Field(max_length=4096)]
Decimal = Annotated[str, Field(max_length=64)]
"""A decimal number as a string: floats don't survive every client unchanged."""
Timestamp = Annotated[str, Field(max_length=64, json_schema_extra={"format": "date-time"})]
"""RFC 3339 in UTC with seconds."""


class Condition(StatusModel):
    """One condition, as `metav1.Condition`."""

    type: Annotated[str, Field(max_length=63)]
    """Which condition this is."""
    status: Literal["True", "False", "Unknown"]
    """Whether it holds."""
    reason: Annotated[str, Field(max_length=128)]
    """One CamelCase word why, for programs."""
    message: Annotated[str, Field(max_length=4096)] = ""
    """A sentence for people: what happened, and what to do where something is to be done."""
    observed_generation: int | None = None
    """`metadata.generation` that this condition was computed from."""
    last_transition_time: Timestamp
    """When `status` last changed."""
