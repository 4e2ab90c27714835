"""Sweeps that can't work: a sentence that says what to change, early, and nothing loops."""

from typing import Any

import pytest
from sweep_scenario import SweepSimulation
from sweep_world import NAMESPACE, Curve, a_sweep, the_sweep
from test_histories import errors_into
from virtual import run

from headway_api.kinds import KINDS
from headway_api.validation import ValidationError, admit
from headway_operator.cluster.client import Invalid, Object, Resource
from headway_operator.resources import SWEEP, TRAINING_JOB

OUR_KINDS = {kind.kind: kind for kind in KINDS}
ASHA = {"asha": {"minSteps": 3, "maxSteps": 27}}
PBT = {"name": "pbt", "pbt": {"stepsPerGeneration": 9, "population": 4}}


def x(**values: Any) -> list[Object]:
    return [{"name": "x", **values}]


def template(**fields: Any) -> Object:
    return {
        "spec": {
            "image": "i",
            "command": ["train", "--x=${params.x}"],
            "workers": {"replicas": 1},
            **fields,
        }
    }


def noted(name: str) -> Object:
    return {**template(), "metadata": {"annotations": {name: "1"}}}


MISTAKES: dict[str, tuple[Object, str]] = {
    "a choice twice": ({"parameters": x(choice=[1, 1])}, "has the choice 1 twice: remove one"),
    "a choice that is another": ({"parameters": x(choice=[1, 1.0])}, "twice: remove one"),
    "a condition on nothing": (
        {"parameters": x(choice=[1], when={"parameter": "nope", "values": [1]})},
        "depends on nope, which does not stand before it in the list: add nope",
    ),
    "a step beyond the range": (
        {"parameters": x(float={"min": 0, "max": 1, "step": 2})},
        "which is larger than its range",
    ),
    "two names for one variable": (
        {"parameters": [*x(choice=[1]), {"name": "X", "choice": [1]}]},
        "would both be HEADWAY_PARAM_X: rename X",
    ),
    "rungs without storage": (
        {"parameters": x(choice=[1]), "stopping": ASHA, "template": template()},
        "pauseAtStep needs storage.uri",
    ),
    "a population without storage": (
        {"parameters": x(choice=[1]), "algorithm": PBT, "template": template()},
        "pauseAtStep needs storage.uri",
    ),
    "no workers": (
        {
            "parameters": x(choice=[0]),
            "template": template(workers={"replicas": "${params.x}"}),
        },
        "replicas",
    ),
    "a quantity that is none": (
        {
            "parameters": x(choice=["2Gig"]),
            "template": template(
                workers={"replicas": 1, "resources": {"limits": {"memory": "${params.x}"}}}
            ),
        },
        "spec.workers.resources.limits.memory",
    ),
    "a field that is none": (
        {"parameters": x(choice=[1]), "template": template(comand=["train"])},
        "template.spec.comand is not right for a TrainingJob",
    ),
    "a parameter that is none": (
        {"parameters": x(choice=[1]), "template": template(command=["${params.z}"])},
        "parameters has no z: add it",
    ),
    "an annotation of ours": (
        {"parameters": x(choice=[1]), "template": noted("headway.dev/trial-stopped")},
        "template.metadata.annotations has headway.dev/trial-stopped, which is the operator's",
    ),
    "an initial point elsewhere": (
        {"initialPoints": [{"x": 5}]},
        "initialPoints[0] has 5 for x, which is not one of its values",
    ),
}


@pytest.mark.parametrize(("spec", "says"), MISTAKES.values(), ids=MISTAKES)
def test_a_sweep_that_cannot_work_stalls_with_a_sentence_and_makes_nothing(
    spec: Object, says: str
) -> None:
    async def history() -> tuple[Object, list[Object], list[str]]:
        simulation = SweepSimulation(3)
        _admitting(simulation)
        with errors_into(simulation.bugs):
            await simulation.submit(**spec)
            await simulation.until(lambda status: bool(_stalled(status)), "stalled")
            before = len(simulation.writes)
            for _ in range(100):
                await simulation.moment()
            await simulation.stop()
        sweep = await the_sweep(simulation.cluster)
        return sweep, await simulation.jobs(), simulation.writes[before:]

    sweep, jobs, later = run(history())
    assert says in _stalled(sweep["status"])
    assert not jobs
    assert not later, "it is written again and again"


def _stalled(status: Object) -> str:
    conditions = {each["type"]: each for each in status.get("conditions", ())}
    found = conditions.get("Stalled", {"status": "False"})
    return str(found["message"]) if found["status"] == "True" else ""


def _admitting(simulation: SweepSimulation) -> None:
    """Have the API server look at TrainingJobs, as it does."""
    create = simulation.cluster.create

    async def admitted(resource: Resource, namespace: str | None, body: Object) -> Object:
        if resource == TRAINING_JOB:
            try:
                body = dict(admit(OUR_KINDS[resource.kind], body, None))
            except ValidationError as error:
                raise Invalid(422, "Invalid", str(error)) from None
        return await create(resource, namespace, body)

    simulation.cluster.create = admitted  # type: ignore[method-assign]


def test_the_manifests_of_these_tests_pass_the_api_server() -> None:
    for spec, _ in MISTAKES.values():
        admit(OUR_KINDS[SWEEP.kind], a_sweep(**spec), None)


def test_an_objective_that_no_script_reports_is_named_when_the_sweep_fails() -> None:
    async def history() -> Object:
        simulation = SweepSimulation(3, curve=Curve(silent=lambda _: True))
        with errors_into(simulation.bugs):
            await simulation.submit(maxFailedTrials=1)
            return await simulation.until_over()

    status = run(history())["status"]
    assert status["reason"] == "TooManyFailedTrials"
    assert "sweep-0 came to its end without a number for loss" in status["message"]
    assert NAMESPACE not in status["message"]
