"""`headway sweep run`: trials as processes, paused, promoted, broken and resumed."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest
from local_runs import script, wait_for
from sweep_runs import SweepRun, a_sweep, index_of, states, stopped, told

pytestmark = [
    pytest.mark.xdist_group("sweep"),
    pytest.mark.timeout(600),  # torch is imported a dozen times
]
SECONDS = 280
STEPS = 27
ASHA = {"asha": {"minSteps": 3, "maxSteps": STEPS}}
MakeSweep = Callable[..., SweepRun]


def reporting(
    sweep: MakeSweep, folder: Path, kinds: Iterable[str] = ("good",), **spec: Any
) -> SweepRun:
    """A sweep over scripts/reports.py; one trial for each kind, unless told otherwise."""
    kinds = list(kinds)
    rates = a_sweep([])["spec"]["parameters"]
    manifest = a_sweep(
        script("reports.py"),
        **{
            "parameters": [*rates, {"name": "kind", "choice": kinds}],
            "initialPoints": [{"kind": kind, "lr": 0.1} for kind in kinds] if kinds[1:] else [],
            "maxTrials": len(kinds),
            "template": {
                "storage": {"uri": str(folder / "storage")},
                "checkpoint": {"everySteps": 1},
                "failurePolicy": {"maxRestarts": 1},
                "pod": {
                    "env": [
                        {"name": "KIND", "value": "${params.kind}"},
                        {"name": "TRIAL", "value": "${trial.index}"},
                    ]
                },
            },
            **spec,
        },
    )
    return sweep(manifest, {"FOLDER": str(folder)})


def steps_of(folder: Path, index: int) -> list[int]:
    """The steps that a trial has trained, in their order."""
    file = folder / str(index)
    return [int(step) for step in file.read_text().split()] if file.exists() else []


# --- rungs ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [1, 2])
def test_asha_pauses_trials_at_rungs_and_promotes_the_best_from_their_checkpoints(
    sweep: MakeSweep, tmp_path: Path, seed: int
) -> None:
    run = reporting(sweep, tmp_path, maxTrials=9, stopping=ASHA, seed=seed)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "AllTrialsEnded"), ended.shown
    trials = {index_of(job): job for job in run.trials()}
    trained = {index: steps_of(tmp_path, index) for index in trials}
    assert sorted(trained) == list(range(9))
    for index, steps in trained.items():
        assert steps == list(range(1, len(steps) + 1)), f"trial {index} has trained a step twice"
        rungs_left = (3, 9, STEPS).index(len(steps))
        assert run.pods_of(trials[index]) == 1 + rungs_left, "one pod for each time it went on"
    reached = Counter(len(steps) for steps in trained.values())
    assert reached[STEPS] >= 1
    # Trials that come one better than the other are all promoted, but for those before the third.
    assert reached[3] >= 2
    best = max(trials, key=lambda index: value_of(trials[index], len(trained[index])))
    assert ended.status["best"]["index"] == best
    for index, state in states(ended.job).items():
        assert state == ("Complete" if len(trained[index]) == STEPS else "Stopped")
        assert ("best 1/3" in stopped(trials[index])) == (state == "Stopped")


def value_of(job: dict[str, Any], step: int) -> float:
    """What a trial has to have reported last."""
    found = {each["metric"]: each for each in job["status"]["observations"]}
    last = found["val_accuracy"]["last"]
    assert last["step"] == step
    return float(last["value"])


# --- Ctrl-C, and going on -------------------------------------------------------------------------


def test_ctrl_c_suspends_the_trials_and_the_same_command_goes_on_with_them(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    """The terminal's signal reaches every process of the group, that of the search, too."""
    run = reporting(sweep, tmp_path, maxTrials=4)
    run.prefix = ["setsid"]  # a process group of its own, as a shell would give it
    held = tmp_path / "wait-at-9"
    held.touch()
    run.start()
    wait_for("two trials at step 9", lambda: at(tmp_path, 9) == {0, 1}, SECONDS)
    assert run.process is not None
    os.killpg(run.process.pid, signal.SIGINT)
    wait_for("the suspension", lambda: "suspending" in run.shown, 20)
    held.unlink()
    first = run.finish(SECONDS)
    assert (first.code, first.phase) == (130, "Suspended"), first.shown
    assert "Traceback" not in first.shown
    assert {index_of(job) for job in run.trials()} == {0, 1}
    before = [told(job)["params"] for job in run.trials()]

    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "AllTrialsEnded"), ended.shown
    assert [told(job)["params"] for job in run.trials()][:2] == before
    assert set(states(ended.job).values()) == {"Complete"}
    for index in range(4):
        assert steps_of(tmp_path, index) == list(range(1, STEPS + 1))


def at(folder: Path, step: int) -> set[int]:
    """Trials that have come to a step."""
    return {index for index in range(9) if steps_of(folder, index)[-1:] == [step]}


def test_a_killed_command_leaves_nothing_behind_and_the_next_one_goes_on(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    run = reporting(sweep, tmp_path, maxTrials=3)
    held = tmp_path / "wait-at-9"
    held.touch()
    run.start()
    wait_for("two trials at step 9", lambda: at(tmp_path, 9) == {0, 1}, SECONDS)
    run.signal(signal.SIGKILL)
    assert run.process is not None
    run.process.communicate()
    wait_for("no process of it", lambda: not run.processes(), 30)
    held.unlink()
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "AllTrialsEnded"), ended.shown
    assert [index_of(job) for job in run.trials()] == [0, 1, 2]
    for index in range(3):
        assert set(steps_of(tmp_path, index)) == set(range(1, STEPS + 1))


def test_a_sweep_that_has_ended_goes_on_when_max_trials_is_raised(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    run = reporting(sweep, tmp_path, maxTrials=1)
    first = run.run(seconds=SECONDS)
    assert (first.code, first.status["ended"]) == (0, "1/1"), first.shown
    run.manifest["spec"]["maxTrials"] = 3
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["ended"]) == (0, "3/3"), ended.shown
    assert run.pods_of(run.trials()[0]) == 1, "what has ended is not run again"


# --- what scripts report --------------------------------------------------------------------------


def test_whatever_scripts_report_each_trial_ends_as_it_should(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    expected = {
        "good": ("Complete", 0.0),
        "silent": ("Failed", None),
        "nan": ("Failed", None),
        "infinite": ("Complete", float("-inf")),
        "sometimes nan": ("Complete", 26 / 27 - 1),
        "twice": ("Complete", 0.0),
        "often": ("Complete", 0.0),
        "late": ("Complete", 0.0),
        "killed": ("Complete", 0.0),
        "fails": ("Failed", None),
    }
    run = reporting(sweep, tmp_path, expected, maxFailedTrials=3)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "AllTrialsEnded"), ended.shown
    trials = {told(job)["params"]["kind"]: job for job in run.trials()}
    for summary in ended.status["trials"]:
        kind = list(expected)[summary["index"]]
        state, value = expected[kind]
        assert summary["state"] == state, kind
        values = [float(each) for each in summary.get("values") or ()]
        assert values == ([] if value is None else [pytest.approx(value, abs=1e-5)]), kind
    (course,) = trials["often"]["status"]["observations"]
    assert len(course["curve"]) <= 64
    assert trials["killed"]["status"]["restarts"]["total"] == 1
    assert trials["fails"]["status"]["phase"] == "Failed"


def test_more_failed_trials_than_allowed_end_the_sweep_and_it_says_where_to_look(
    sweep: MakeSweep, tmp_path: Path
) -> None:
    run = reporting(sweep, tmp_path, ["fails", "good"], maxFailedTrials=0, parallelTrials=1)
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (1, "TooManyFailedTrials")
    assert "look at the failed trials' jobs, or raise it to go on" in " ".join(ended.shown.split())
    assert len(run.trials()) == 1
    run.manifest["spec"]["maxFailedTrials"] = 1
    ended = run.run(seconds=SECONDS)
    assert (ended.code, ended.status["reason"]) == (0, "AllTrialsEnded"), ended.shown
    assert states(ended.job) == {0: "Failed", 1: "Complete"}
