"""Population based training for real: copies start from the checkpoints of others, on S3."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hack.seaweed import SeaweedServer
from local_runs import keys, script, storage
from sweep_runs import SweepRun, a_sweep, index_of, states, told

pytestmark = [
    pytest.mark.xdist_group("sweep"),
    pytest.mark.timeout(600),  # torch is imported a dozen times
]
SECONDS = 280
STEPS = 20
MakeSweep = Callable[..., SweepRun]


def population(sweep: MakeSweep, folder: Path, server: SeaweedServer, **template: Any) -> SweepRun:
    """Four members, two generations after the first; half of them are replaced each time."""
    pbt = {"population": 4, "stepsPerGeneration": STEPS, "generations": 3, "quantile": 0.5}
    manifest = a_sweep(
        script("pbt_digits.py"),
        algorithm={"name": "pbt", "pbt": pbt},
        maxTrials=8,
        maxFailedTrials=0,
        template={
            "storage": storage(server, f"{server.make_bucket('pbt')}/{folder.name}"),
            "pod": {"env": [{"name": "TRIAL", "value": "${trial.index}"}]},
            **template,
        },
    )
    return sweep(manifest, keys(server, FOLDER=str(folder)))


def history(folder: Path, index: int) -> tuple[list[list[str]], dict[int, list[str]]]:
    """Starts of a trial (step, weights), and its steps: learning rate and weights."""
    lines = [line.split() for line in (folder / str(index)).read_text().splitlines()]
    starts = [line[1:] for line in lines if line[0] == "start"]
    steps = [line for line in lines if line[0] != "start"]
    found = {int(step): rest for step, *rest in steps}
    assert len(found) == len(steps), f"trial {index} has trained a step twice"
    return starts, found


@pytest.mark.parametrize("seed", [1, 2])
def test_the_worst_go_on_from_the_checkpoints_of_the_best_with_parameters_of_their_own(
    sweep: MakeSweep, tmp_path: Path, seaweed: SeaweedServer, seed: int
) -> None:
    """With checkpoints so often that a source's is cleaned away as soon as it goes on."""
    checkpoint = {"everySteps": 5, "keepLast": 1}
    run = population(sweep, tmp_path, seaweed, checkpoint=checkpoint)
    run.manifest["spec"]["seed"] = seed
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "PopulationTrained"), ended.shown
    trials = {index_of(job): job for job in run.trials()}
    assert sorted(trials) == list(range(8))
    assert set(states(ended.job).values()) <= {"Stopped", "Complete"}
    for index, job in trials.items():
        origin = told(job)["attrs"].get("pbt")
        starts, steps = history(tmp_path, index)
        assert {float(rate) for rate, _ in steps.values()} == {told(job)["params"]["lr"]}
        if index < 4:
            assert origin is None
            assert starts[0][0] == "0"
            continue
        step, weights = int(starts[0][0]), starts[0][1]
        assert step == origin["step"] == STEPS * origin["generation"]
        assert weights == history(tmp_path, origin["from"])[1][step][1], "not the source's weights"
        assert min(steps) == step + 1, "it goes on, and does not start over"
    trained = sum(len(history(tmp_path, index)[1]) for index in trials)
    assert trained == 4 * STEPS * 3
    last = [index for index in trials if max(history(tmp_path, index)[1]) == 3 * STEPS]
    assert len(last) == 4
