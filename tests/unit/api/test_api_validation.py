"""What offline admission does beside refusing (tests/api/test_crds.py has the refusals)."""

import copy
import subprocess
import sys
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field

from headway_api import validation
from headway_api.base import ApiModel, Immutable, ListType, Rule
from headway_api.contract import API_VERSION
from headway_api.kinds import TRAINING_JOB, Kind
from headway_api.validation import ValidationError, admit

Word = Annotated[str, Field(max_length=8)]


def job(**spec: Any) -> dict[str, Any]:
    base = {"image": "trainer:1", "command": ["python", "train.py"]}
    return {
        "apiVersion": API_VERSION,
        "kind": "TrainingJob",
        "metadata": {"name": "digits", "labels": {"kept": "as it is"}},
        "spec": base | spec,
    }


class Part(ApiModel):
    """A part."""

    name: Word
    """Its name."""
    value: Annotated[Word, Immutable("value can't change")]
    """Its value."""


class BoxSpec(ApiModel):
    """Lists of both merge types, for rules on changes."""

    keyed: Annotated[list[Part], ListType("map", ("name",)), Field(max_length=4)] | None = None
    """By name."""
    plain: Annotated[list[Part], ListType("atomic"), Field(max_length=4)] | None = None
    """As one."""

    cel: ClassVar = (Rule("!has(self.plain) || self.plain.size() < 3", "too many parts"),)


BOX = Kind(kind="Box", plural="boxes", description="A box.", spec=BoxSpec)


def box(**spec: object) -> dict[str, Any]:
    return {"apiVersion": API_VERSION, "kind": "Box", "metadata": {"name": "b"}, "spec": spec}


def part(name: str, value: str) -> dict[str, str]:
    return {"name": name, "value": value}


def test_defaults_are_filled_in_and_the_arguments_stay_as_they_were() -> None:
    new = job(checkpoint={"everySteps": 5}, storage={"uri": "/data"}, gpu=None)
    old = job(checkpoint={}, storage={"uri": "/data"})
    before = copy.deepcopy((new, old))
    stored = admit(TRAINING_JOB, new, old)
    assert (new, old) == before
    assert stored["spec"]["checkpoint"] == {"everySteps": 5, "keepLast": 3}
    assert stored["spec"]["workers"] == {"replicas": 1, "processesPerWorker": 1}
    assert "gpu" not in stored["spec"]
    assert stored["metadata"] == new["metadata"]


def test_defaults_of_one_object_are_not_those_of_the_next() -> None:
    admit(TRAINING_JOB, job())["spec"]["workers"]["replicas"] = 9
    assert admit(TRAINING_JOB, job())["spec"]["workers"]["replicas"] == 1


def test_admitting_what_was_admitted_changes_nothing() -> None:
    stored = admit(TRAINING_JOB, job())
    assert admit(TRAINING_JOB, stored, stored) == stored


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        ({"preload": []}, "spec.preload"),
        ({"preload": ["not a module"]}, "spec.preload[0]"),
        ({"preload": ["a..b"]}, "spec.preload[0]"),
        ({"preload": ["a,b"]}, "spec.preload[0]"),
        ({"preload": ["os", "1st"]}, "spec.preload[1]"),
        ({"preload": ["m"] * 65}, "spec.preload"),
        (
            {"failurePolicy": {"progressDeadlineSeconds": 0}},
            "failurePolicy.progressDeadlineSeconds",
        ),
        (
            {"failurePolicy": {"progressDeadlineSeconds": 9}},
            "failurePolicy.progressDeadlineSeconds",
        ),
    ],
)
def test_what_no_pod_could_import_or_wait_for_is_refused(spec: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as caught:
        admit(TRAINING_JOB, job(**spec))
    assert field in str(caught.value)


def test_modules_and_the_deadline_of_steps_are_taken_over() -> None:
    spec = {"preload": ["torch", "_my.pkg2"], "failurePolicy": {"progressDeadlineSeconds": 10}}
    stored = admit(TRAINING_JOB, job(**spec))["spec"]
    assert stored["preload"] == ["torch", "_my.pkg2"]
    assert stored["failurePolicy"] == {"maxRestarts": 10, "progressDeadlineSeconds": 10}
    assert admit(TRAINING_JOB, job(failurePolicy={}))["spec"]["failurePolicy"] == {
        "maxRestarts": 10,
        "progressDeadlineSeconds": 1800,
    }


@pytest.mark.parametrize(
    ("spec", "hint"),
    [
        ({"comand": ["x"]}, 'unknown field "spec.comand": did you mean "command"?'),
        ({"workers": {"replica": 2}}, 'did you mean "replicas"?'),
        ({"network": {"zzz": 1}}, 'unknown field "spec.network.zzz": known fields: service'),
    ],
    ids=["near", "below", "far"],
)
def test_an_unknown_field_names_the_one_that_was_meant(spec: dict[str, Any], hint: str) -> None:
    with pytest.raises(ValidationError, match=hint.replace("?", r"\?")):
        admit(TRAINING_JOB, job(**spec))


def test_kubernetes_own_parts_may_hold_anything() -> None:
    pod = {"affinity": {"any": [{"depth": None}]}, "volumes": [{"name": "x", "odd": {}}]}
    assert admit(TRAINING_JOB, job(pod=pod))["spec"]["pod"] == pod


def test_every_cause_is_told_and_one_alone_fits_on_the_line() -> None:
    with pytest.raises(ValidationError) as one:
        admit(TRAINING_JOB, job(suspend="no"))
    assert str(one.value) == (
        'The TrainingJob "digits" is invalid: spec.suspend: Invalid value: "string": '
        'spec.suspend in body must be of type boolean: "string"'
    )
    with pytest.raises(ValidationError) as two:
        admit(TRAINING_JOB, job(framework="JAX", storage={}))
    assert {cause.field for cause in two.value.causes} == {"spec.framework", "spec.storage.uri"}
    assert str(two.value).count("\n* ") == 2


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"kind": "Job"}, 'kind: Unsupported value: "Job": supported values: "TrainingJob"'),
        ({"apiVersion": "headway.dev/v9"}, 'supported values: "headway.dev/v1alpha1"'),
        ({"metadata": {}}, "metadata.name: Required value"),
        ({"metadata": None}, "metadata.name: Required value"),
        ({"spec": None}, "spec: Required value"),
        ({"spec": []}, 'spec in body must be of type object: "array"'),
    ],
    ids=["kind", "version", "no-name", "no-metadata", "no-spec", "spec-list"],
)
def test_a_broken_envelope_is_an_error_with_a_sentence(change: dict[str, Any], says: str) -> None:
    with pytest.raises(ValidationError) as caught:
        admit(TRAINING_JOB, job() | change)
    assert says in str(caught.value)


def test_rules_on_changes_follow_an_item_by_its_key_not_by_its_place() -> None:
    old = box(keyed=[part("a", "1"), part("b", "2")])
    assert admit(BOX, box(keyed=[part("b", "2"), part("c", "9"), part("a", "1")]), old)
    with pytest.raises(ValidationError, match=r"spec\.keyed\[0\]\.value: .*value can't change"):
        admit(BOX, box(keyed=[part("b", "1")]), old)


def test_items_of_an_atomic_list_have_no_past() -> None:
    assert admit(BOX, box(plain=[part("a", "2")]), box(plain=[part("a", "1")]))


def test_a_rule_without_a_field_blames_its_object() -> None:
    parts = [part(name, "1") for name in "abc"]
    with pytest.raises(ValidationError, match=r"invalid: spec: Invalid value: too many parts$"):
        admit(BOX, box(plain=parts))


def test_a_last_newline_does_not_slip_past_a_pattern() -> None:
    with pytest.raises(ValidationError, match="in body should match"):
        admit(TRAINING_JOB, job(runtimeRef={"name": "base\n"}))


def test_without_the_cel_package_the_error_says_what_to_install(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    validation._program.cache_clear()
    monkeypatch.setitem(sys.modules, "cel", None)
    with pytest.raises(ImportError, match=r"pip install 'headway\[local\]'"):
        admit(TRAINING_JOB, job())


def test_the_operator_in_a_cluster_does_not_load_cel() -> None:
    """The operator imports the module for its types; only local mode has the package."""
    program = "import sys, headway_api.validation; sys.exit('cel' in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
