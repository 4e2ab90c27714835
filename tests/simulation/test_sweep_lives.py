"""What users do to sweeps, and what trials do, in simulated time."""

import os
import random
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from faults import Faults
from sweep_scenario import SweepSimulation
from sweep_world import TERMINAL, Curve, a_sweep, phase_of
from test_histories import errors_into
from test_sweep_crashes import SWEEPS, counts
from virtual import run

from headway_operator.cluster.client import Object
from headway_operator.resources import SWEEP, TRAINING_JOB

SEEDS = int(os.environ.get("HEADWAY_SIM_SEEDS", "1000")) // 10
Act = Callable[[SweepSimulation], Awaitable[None]]


def play(spec: dict[str, Any], act: Act | None = None, curve: Curve | None = None) -> Object:
    """A sweep from its start to its end, with something that somebody does in between."""

    async def history() -> Object:
        simulation = SweepSimulation(3, curve=curve)
        with errors_into(simulation.bugs):
            await simulation.submit(**spec)
            if act is not None:
                await act(simulation)
            return await simulation.until_over()

    return run(history())


def reason_of(sweep: Object) -> tuple[str, str]:
    return sweep["status"]["phase"], sweep["status"]["reason"]


# --- ends ---------------------------------------------------------------------------------------


def test_too_many_failed_trials_fail_the_sweep_and_stop_the_others() -> None:
    curve = Curve(fails=lambda index: index in {0, 1})
    sweep = play({"maxFailedTrials": 1, "maxTrials": 20, "parallelTrials": 3}, curve=curve)
    assert reason_of(sweep) == ("Failed", "TooManyFailedTrials")
    assert counts(sweep)["failed"] == 2
    assert counts(sweep)["running"] == 0
    assert counts(sweep)["created"] < 20


def test_an_objective_that_is_never_reported_is_a_failed_trial() -> None:
    sweep = play({"maxFailedTrials": 6}, curve=Curve(silent=lambda index: index == 2))
    assert reason_of(sweep) == ("Succeeded", "AllTrialsEnded")
    assert counts(sweep)["failed"] == 1
    assert counts(sweep)["complete"] == 5


def test_a_goal_ends_the_sweep() -> None:
    spec = {"objectives": [{"metric": "loss", "goal": 0.3}], "maxTrials": 100}
    sweep = play(spec)
    assert reason_of(sweep) == ("Succeeded", "GoalReached")
    assert counts(sweep)["created"] < 100
    assert float(sweep["status"]["best"]["values"][0]) <= 0.3


def test_a_time_budget_ends_the_sweep_and_stops_what_runs() -> None:
    sweep = play({"timeBudgetSeconds": 25, "maxTrials": 100})
    assert reason_of(sweep) == ("Succeeded", "TimeBudgetUsed")
    assert counts(sweep)["stopped"] >= 1


def test_a_wall_time_stops_a_trial_whose_reports_count() -> None:
    spec = {"stopping": {"wallTimeSeconds": 4}, "maxTrials": 3}
    sweep = play(spec, curve=Curve(steps=10**6))
    assert reason_of(sweep) == ("Succeeded", "AllTrialsEnded")
    assert counts(sweep)["stopped"] == 3
    assert sweep["status"]["best"]["values"]


def test_a_sweep_is_deleted_when_its_time_to_live_is_over() -> None:
    async def history() -> None:
        simulation = SweepSimulation(3)
        await simulation.submit(ttlSecondsAfterFinished=30)
        await simulation.until(lambda status: status.get("phase") in TERMINAL, "over")
        while (await simulation.cluster.list(SWEEP)).items:
            await simulation.moment()
        await simulation.stop()

    run(history())


# --- what users change --------------------------------------------------------------------------


def test_more_trials_let_a_finished_sweep_go_on() -> None:
    async def act(simulation: SweepSimulation) -> None:
        await simulation.until(lambda status: status.get("phase") == "Succeeded", "over")
        await simulation.edit(maxTrials=9)
        await simulation.until(lambda status: status.get("phase") == "Running", "going on")

    sweep = play({"maxTrials": 4}, act)
    assert counts(sweep)["complete"] == 9
    assert sweep["status"]["ended"] == "9/9"


def test_a_suspended_sweep_rests_and_goes_on_where_it_was() -> None:
    async def act(simulation: SweepSimulation) -> None:
        await simulation.until(
            lambda status: (status.get("counts") or {}).get("complete", 0) > 1, ""
        )
        await simulation.edit(suspend=True)
        await simulation.until(lambda status: status.get("phase") == "Suspended", "suspended")
        assert all(phase_of(job) in (*TERMINAL, "Suspended") for job in await simulation.jobs())
        trained = dict(simulation.world.trained)
        for _ in range(100):
            await simulation.moment()
        assert simulation.world.trained == trained
        await simulation.edit(suspend=False)

    sweep = play({"maxTrials": 6}, act)
    assert reason_of(sweep) == ("Succeeded", "AllTrialsEnded")
    assert counts(sweep)["complete"] == 6


def test_parallel_trials_may_change_at_any_time() -> None:
    async def act(simulation: SweepSimulation) -> None:
        await simulation.until(lambda status: status.get("phase") == "Running", "running")
        for _ in range(5):
            await simulation.moment()
        assert simulation.cluster.most_active == 1
        await simulation.edit(parallelTrials=4)
        for _ in range(5):
            await simulation.moment()
        assert simulation.cluster.most_active == 4

    assert counts(play({"maxTrials": 8, "parallelTrials": 1}, act))["complete"] == 8


def test_a_trial_that_somebody_deletes_is_not_made_again() -> None:
    async def act(simulation: SweepSimulation) -> None:
        await simulation.until(lambda status: (status.get("counts") or {}).get("created") == 4, "")
        await simulation.cluster.delete(TRAINING_JOB, "lab", "sweep-1")

    sweep = play({"maxTrials": 6}, act)
    assert reason_of(sweep) == ("Succeeded", "AllTrialsEnded")
    assert counts(sweep)["created"] == 6
    assert counts(sweep)["complete"] == 5


# --- mistakes -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ({"template": {"spec": {"image": "i", "command": ["${params.z}"]}}}, "no z"),
        ({"template": {"spec": {"image": "i", "command": ["c"], "suspend": True}}}, "suspend"),
        ({"template": {"spec": {"image": 5, "command": ["c"]}}}, "template.spec.image"),
        ({"parameters": [{"name": "x", "choice": [1, 1]}]}, "choice"),
    ],
)
def test_a_sweep_that_can_t_be_right_stalls_until_it_is_mended(
    spec: dict[str, Any], said: str
) -> None:
    async def history() -> None:
        simulation = SweepSimulation(3)
        await simulation.submit(**spec)
        found = await simulation.until(
            lambda status: any(c["type"] == "Stalled" for c in status.get("conditions") or ()),
            "stalled",
        )
        assert said in found["status"]["message"]
        assert not await simulation.jobs()
        before = len(simulation.writes)
        for _ in range(50):
            await simulation.moment()
        assert simulation.writes[before:] == []
        if "template" in spec:
            template = {"spec": {"image": "i", "command": ["c"], "suspend": None}}
            await simulation.edit(template=template)
            await simulation.until(lambda status: status.get("phase") == "Succeeded", "over")
        await simulation.stop()

    run(history())


def test_parameters_that_the_template_can_t_take_are_failed_trials() -> None:
    template = {
        "image": "i",
        "command": ["c"],
        "workers": {"replicas": "${params.n}"},
        "storage": {"uri": "s3://b/p"},
    }
    spec = {
        "parameters": [{"name": "n", "choice": [1, 0, 2]}],
        "algorithm": {"name": "grid"},
        "template": {"spec": template},
    }
    sweep = play(spec)
    assert reason_of(sweep) == ("Succeeded", "SpaceExhausted")
    assert counts(sweep)["failed"] == 1
    assert counts(sweep)["complete"] == 2


# --- all of it ----------------------------------------------------------------------------------


async def wild(seed: int) -> None:
    """Faults, and a user who can't make up their mind."""
    rng = random.Random(seed)
    scale = rng.choice([0.0, 1.0, 3.0])
    faults = Faults(
        crash=0.02 * scale * rng.random(),
        error=0.05 * scale * rng.random(),
        slow_watch=0.05 * scale * rng.random(),
        broken_watch=0.02 * scale * rng.random(),
        gone=0.04 * scale * rng.random(),
        latency=rng.choice([0.001, 0.02, 0.5]),
    )
    bad = {index for index in range(30) if rng.random() < 0.1}
    mute = {index for index in range(30) if rng.random() < 0.1}
    curve = Curve(fails=bad.__contains__, silent=mute.__contains__)
    simulation = SweepSimulation(seed, faults, curve)
    with errors_into(simulation.bugs):
        spec = {**SWEEPS[rng.choice(list(SWEEPS))], "maxFailedTrials": 100}
        await simulation.submit(**spec)
        for _ in range(rng.randint(0, 200)):
            await simulation.moment()
            if rng.random() < 0.03:
                await simulation.edit(
                    **rng.choice([{"suspend": True}, {"suspend": False}, {"parallelTrials": 4}])
                )
        await simulation.edit(suspend=False)
        sweep = await simulation.until_over()
    assert sweep["status"]["phase"] == "Succeeded", sweep["status"]
    told = counts(sweep)
    assert told["running"] == told["paused"] == 0
    assert told["created"] == len({index for index, _ in simulation.cluster.chosen}), told


@pytest.mark.parametrize("batch", range(10))
def test_no_life_of_a_sweep_breaks_an_invariant(batch: int) -> None:
    for seed in range(batch, SEEDS, 10):
        try:
            run(wild(seed))
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


def test_a_sweep_learns_from_another_once_and_keeps_what_it_has_read() -> None:
    """The other one may go, and the operator may die: the trials stay the same."""

    async def history(*, deleted: bool) -> dict[tuple[int, int], Any]:
        simulation = SweepSimulation(3)
        before = a_sweep(maxTrials=12, parallelTrials=4)
        before["metadata"]["name"] = "before"
        await simulation.cluster.create(SWEEP, "lab", before)
        while phase_of(await simulation.cluster.get(SWEEP, "lab", "before")) != "Succeeded":
            await simulation.moment()
        simulation.cluster.chosen.clear()
        tpe = {"name": "tpe", "startupTrials": 5}
        await simulation.submit(
            warmStart=[{"name": "before"}], algorithm=tpe, seed=3, maxTrials=4, parallelTrials=1
        )
        await simulation.until(lambda status: status.get("phase") == "Running", "running")
        if deleted:
            await simulation.cluster.delete(SWEEP, "lab", "before")
            await simulation.stop()
        await simulation.until_over()
        return simulation.cluster.chosen

    warm = run(history(deleted=False))
    assert run(history(deleted=True)) == warm
    cold = play({"algorithm": {"name": "tpe", "startupTrials": 5}, "seed": 3, "maxTrials": 4})
    assert len(warm) == counts(cold)["created"] == 4
