"""From a configuration to the TrainingJob that tries it."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any, Final

from pydantic import ValidationError

from headway_api import contract
from headway_api.base import JsonSchema
from headway_api.schema import structural
from headway_api.sweep import SweepSpec
from headway_api.trainingjob import TrainingJobSpec
from headway_operator.sweep.space import SEED, text
from headway_operator.sweep.trial import Scalar
from headway_operator.trainingjob.stuck import Stuck

_REFERENCE = re.compile(r"\$\{(params|trial)\.([^}]*)\}")
_OF_TRIAL: Final = ("name", "index", "seed")
_OURS: Final = {
    "suspend": "set suspend of the sweep",
    "pauseAtStep": "the rules in stopping decide",
    "observe": "the sweep's objectives are observed",
    "ttlSecondsAfterFinished": "use retention of the sweep, which keeps the records",
    "managedBy": "the trials are the sweep's",
    "model": "set model of the sweep",
}
"""Fields of a TrainingJob that a template can't set, and what to do instead."""


class _Inactive(Exception):  # noqa: N818 - it is an answer, not a fault
    """What is being filled in refers to a parameter that is no part of this trial."""


@dataclass(frozen=True)
class Run:
    """One run of one configuration.

    Attributes:
        sweep: name of the sweep.
        index: of the configuration.
        number: which of its repeats, from 0.
        seed: for the script.
    """

    sweep: str
    index: int
    number: int
    seed: int

    @property
    def name(self) -> str:
        """Name of its TrainingJob."""
        return contract.trial_name(self.sweep, self.index, self.number)


def seed_of(base: str, run: int) -> int:
    """A seed for a run: the same for all configurations, so that they are compared fairly.

    Args:
        base: `spec.seed` or the UID of the sweep.
        run: which of a configuration's repeats.

    Returns:
        Below 2**31, which every library takes.
    """
    return int.from_bytes(hashlib.sha256(f"{base}/run/{run}".encode()).digest()[:4]) >> 1


def filled(spec: SweepSpec, run: Run, params: Mapping[str, Scalar]) -> dict[str, Any]:
    """The spec of a run's TrainingJob.

    Args:
        spec: of the sweep.
        run: which one.
        params: active parameters, typed.

    Raises:
        Stuck: the template can't be filled in, or makes no TrainingJob.
    """
    names = {parameter.name for parameter in spec.parameters}
    body: dict[str, Any] = _fill(spec.template.spec, _schema(), _Values(names, params, run))
    given = body.get("parameters") or {}
    own = {name: text(value) for name, value in params.items()}
    # A default only: a sweep over `seed` itself means it.
    seed = {} if SEED in names else {SEED: str(run.seed)}
    body["parameters"] = {**seed, **given, **own}
    return body


def check(spec: SweepSpec) -> tuple[str, ...]:
    """Check what the API server can't: a template is anything to it.

    Returns:
        Names of parameters that the template never refers to. Scripts can still read them from
        HEADWAY_PARAM_<NAME>.

    Raises:
        Stuck: the template makes no TrainingJob; the text says what to change.
    """
    for name, instead in _OURS.items():
        if name in spec.template.spec:
            raise Stuck("TemplateInvalid", f"template.spec.{name} is not for trials: {instead}.")
    given = spec.template.metadata
    for kind, names in (
        ("labels", (given and given.labels) or {}),
        ("annotations", (given and given.annotations) or {}),
    ):
        for name in (name for name in names if name.startswith(f"{contract.GROUP}/")):
            said = f"template.metadata.{kind} has {name}, which is the operator's: remove it."
            raise Stuck("TemplateInvalid", said)
    used = set(_references(spec.template.spec))
    return tuple(p.name for p in spec.parameters if ("params", p.name) not in used)


def validated(body: Mapping[str, Any]) -> None:
    """Check a filled template against the schema of TrainingJobs.

    Raises:
        Stuck: it is none; the text names the first field that is wrong.
    """
    try:
        TrainingJobSpec.model_validate(body)
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        field = ".".join(str(step) for step in first["loc"])
        given = json.dumps(first["input"], default=str)[:100]
        raise Stuck(
            "TemplateInvalid",
            f"template.spec.{field} is not right for a TrainingJob: {first['msg']}; it is {given}.",
        ) from None


@dataclass(frozen=True)
class _Values:
    names: set[str]
    params: Mapping[str, Scalar]
    run: Run

    def of(self, kind: str, name: str) -> Scalar:
        if kind == "trial":
            if name in _OF_TRIAL:
                value: Scalar = getattr(self.run, name)
                return value
            raise Stuck(
                "TemplateInvalid",
                f"template.spec refers to ${{trial.{name}}}: there are trial.name, trial.index and "
                "trial.seed.",
            )
        if name in self.params:
            return self.params[name]
        if name in self.names:
            raise _Inactive
        raise Stuck(
            "UnknownParameter",
            f"template.spec refers to ${{params.{name}}}, but parameters has no {name}: add it.",
        )


@cache
def _schema() -> JsonSchema:
    return structural(TrainingJobSpec)


def _fill(node: Any, schema: JsonSchema, values: _Values) -> Any:
    """A copy of a template with its references replaced.

    What refers to an inactive parameter is left out: the entry of a map, the item of a list. A
    string that is nothing but a reference becomes a number where the schema has no string.
    """
    if isinstance(node, str):
        whole = _REFERENCE.fullmatch(node)
        if whole and schema.get("type") != "string":
            return values.of(whole[1], whole[2])
        return _REFERENCE.sub(lambda match: text(values.of(match[1], match[2])), node)
    if isinstance(node, Mapping):
        fields, others = schema.get("properties", {}), schema.get("additionalProperties", {})
        steps = ((name, item, fields.get(name, others)) for name, item in node.items())
        return dict(_filled(steps, values))
    if isinstance(node, list):
        items = schema.get("items", {})
        steps = ((index, item, items) for index, item in enumerate(node))
        return [item for _, item in _filled(steps, values)]
    return node


def _filled(
    steps: Iterable[tuple[Any, Any, JsonSchema]], values: _Values
) -> Iterator[tuple[Any, Any]]:
    for name, item, schema in steps:
        try:
            yield name, _fill(item, schema, values)
        except _Inactive:
            continue


def _references(node: Any) -> Iterator[tuple[str, str]]:
    if isinstance(node, str):
        yield from _REFERENCE.findall(node)
    elif isinstance(node, Mapping):
        for item in node.values():
            yield from _references(item)
    elif isinstance(node, list):
        for item in node:
            yield from _references(item)
