"""From a configuration to a TrainingJob."""

from typing import Any

import pytest

from headway_api.sweep import SweepSpec
from headway_operator.sweep import template
from headway_operator.sweep.template import Run
from headway_operator.trainingjob.stuck import Stuck

RUN = Run("digits", 7, 0, 123)


def spec(body: dict[str, Any], *names: str, **fields: Any) -> SweepSpec:
    parameters = [{"name": name, "choice": [1]} for name in names or ("x",)]
    return SweepSpec.model_validate(
        {
            "parameters": parameters,
            "objectives": [{"metric": "loss"}],
            "maxTrials": 1,
            "template": {"spec": body},
            **fields,
        }
    )


def filled(body: dict[str, Any], **params: Any) -> dict[str, Any]:
    return template.filled(spec(body, *params, "other"), RUN, params)


def test_references_are_replaced_anywhere_and_typed_where_a_number_belongs() -> None:
    body = {
        "command": ["train", "--lr", "${params.lr}", "--out=${trial.name}/${trial.index}"],
        "workers": {"replicas": "${params.n}"},
        "pod": {"env": [{"name": "FAST", "value": "${params.fast}"}]},
        "storage": {"uri": "s3://b/${params.kind}"},
    }
    made = filled(body, lr=1e-4, n=3, fast=True, kind="a")
    assert made["command"] == ["train", "--lr", "0.0001", "--out=digits-7/7"]
    assert made["workers"] == {"replicas": 3}
    assert made["pod"]["env"][0]["value"] == "true"
    assert made["storage"]["uri"] == "s3://b/a"


def test_parameters_reach_the_script_with_the_runs_seed() -> None:
    made = filled({"parameters": {"epochs": "3"}}, lr=0.1)
    assert made["parameters"] == {"epochs": "3", "lr": "0.1", "seed": "123"}


@pytest.mark.parametrize("where", ["space", "template"])
def test_a_seed_of_the_users_own_stays(where: str) -> None:
    body = {"parameters": {"seed": "5"}} if where == "template" else {}
    made = filled(body, **({"seed": 5} if where == "space" else {"x": 1}))
    assert made["parameters"]["seed"] == "5"


def test_what_refers_to_an_inactive_parameter_is_left_out() -> None:
    body = {
        "command": ["train", "--momentum=${params.other}", "--lr=${params.lr}"],
        "pod": {"env": [{"name": "M", "value": "x"}], "labels": {"m": "${params.other}"}},
    }
    made = filled(body, lr=0.5)
    assert made["command"] == ["train", "--lr=0.5"]
    assert made["pod"]["labels"] == {}


def test_an_unknown_parameter_is_named() -> None:
    with pytest.raises(Stuck, match=r"\$\{params.lrr\}, but parameters has no lrr"):
        filled({"command": ["${params.lrr}"]}, lr=1)


def test_an_unknown_word_about_the_trial_is_named() -> None:
    with pytest.raises(Stuck, match="there are trial"):
        filled({"command": ["${trial.uid}"]}, lr=1)


@pytest.mark.parametrize("field", ["suspend", "pauseAtStep", "ttlSecondsAfterFinished", "model"])
def test_fields_that_are_the_sweeps_are_refused(field: str) -> None:
    with pytest.raises(Stuck, match=f"template.spec.{field} is not for trials"):
        template.check(spec({field: 1}))


def test_parameters_that_the_template_never_uses_are_told() -> None:
    body = {"command": ["--a=${params.a}"]}
    assert template.check(spec(body, "a", "b")) == ("b",)


def test_a_filled_template_that_is_no_training_job_names_the_field() -> None:
    with pytest.raises(Stuck, match=r"template.spec.workers.replicas .* it is 0"):
        template.validated({"image": "i", "command": ["c"], "workers": {"replicas": 0}})


def test_runs_have_seeds_of_their_own_the_same_for_all_configurations() -> None:
    seeds = [template.seed_of("uid", run) for run in range(100)]
    assert len(set(seeds)) == 100
    assert all(0 <= seed < 2**31 for seed in seeds)
    assert seeds == [template.seed_of("uid", run) for run in range(100)]
    assert seeds != [template.seed_of("other", run) for run in range(100)]
