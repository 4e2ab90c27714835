"""Sweeps whose operator dies at each of its writes in turn: no trial lost, doubled or changed."""

from typing import Any

import pytest
from faults import MOMENTS, Faults, Moment
from sweep_scenario import SweepSimulation
from sweep_world import Curve
from test_histories import errors_into
from virtual import run

from headway_operator.cluster.client import Object

SWEEPS: dict[str, dict[str, Any]] = {
    "one by one": {"parallelTrials": 1, "maxTrials": 5},
    "parallel": {"parallelTrials": 3, "maxTrials": 7},
    "repeats": {"parallelTrials": 2, "maxTrials": 3, "repeats": {"count": 2}},
    "tpe": {"algorithm": {"name": "tpe", "startupTrials": 2}, "maxTrials": 5},
    "grid": {
        "algorithm": {"name": "grid"},
        "maxTrials": 50,
        "parameters": [
            {"name": "x", "choice": [0.1, 0.3, 0.5]},
            {"name": "y", "int": {"min": 0, "max": 1}},
        ],
    },
    "asha": {
        "stopping": {"asha": {"minSteps": 3, "maxSteps": 27, "reductionFactor": 3}},
        "maxTrials": 9,
        "parallelTrials": 3,
    },
    "hyperband": {
        "stopping": {"hyperband": {"minSteps": 3, "maxSteps": 27, "reductionFactor": 3}},
        "maxTrials": 12,
        "parallelTrials": 3,
    },
    "pbt": {
        "algorithm": {
            "name": "pbt",
            "pbt": {"population": 4, "stepsPerGeneration": 5, "generations": 3},
        },
        "maxTrials": 30,
        "parallelTrials": 2,
    },
    "records": {"retention": {"keep": 2}, "maxTrials": 6},
}


async def live(
    seed: int, faults: Faults, spec: dict[str, Any], curve: Curve | None = None
) -> tuple[SweepSimulation, Object]:
    simulation = SweepSimulation(seed, faults, curve)
    with errors_into(simulation.bugs):
        await simulation.submit(**spec)
        return simulation, await simulation.until_over()


def counts(sweep: Object) -> dict[str, int]:
    found: dict[str, int] = sweep["status"]["counts"]
    return found


@pytest.mark.parametrize("moment", MOMENTS)
@pytest.mark.parametrize("name", SWEEPS)
def test_a_crash_at_any_write_loses_doubles_and_changes_no_trial(name: str, moment: Moment) -> None:
    """The cluster checks each write; here: all trials there, and no more than asked."""
    undisturbed, before = run(live(7, Faults(), SWEEPS[name]))
    assert before["status"]["phase"] == "Succeeded", before["status"]
    for number in range(1, undisturbed.to_the_end + 1):
        faults = Faults(crash_write=number, crash_moment=moment)
        simulation, sweep = run(live(7, faults, SWEEPS[name]))
        assert any("dies" in line for line in simulation.trace), f"no crash at {number}"
        assert sweep["status"]["phase"] == "Succeeded", (number, sweep["status"])
        assert counts(sweep)["created"] == counts(before)["created"], number
        assert simulation.cluster.most_active <= SWEEPS[name].get("parallelTrials", 2), number


@pytest.mark.parametrize("algorithm", ["random", "tpe", "nsgaii", "qmc"])
def test_trials_one_by_one_are_the_same_whatever_the_operator_goes_through(algorithm: str) -> None:
    """A configuration is a function of what the objects say, and of nothing else."""
    spec = {"parallelTrials": 1, "maxTrials": 6, "seed": 5, "algorithm": {"name": algorithm}}
    calm, _ = run(live(1, Faults(), spec))
    for seed in range(5):
        faults = Faults(crash=0.1, error=0.1, slow_watch=0.1, broken_watch=0.05, gone=0.05)
        stormy, _ = run(live(seed, faults, spec))
        assert stormy.cluster.chosen == calm.cluster.chosen, f"seed {seed}"
