"""`make demo-sweep`: a hyperparameter search on this machine, and what its result is worth.

Starts an S3 server and runs examples/sweep/sweep.yaml with `headway sweep run`: trials pause at
rungs, and only the best go on from their checkpoints. Then a second sweep trains the template's own
parameters and those that were found, both to the end and with the same new seeds, and compares them
on a test set that the search has never seen. Everything it writes is in one folder; everything it
starts ends with it.
"""

from __future__ import annotations

import argparse
import json
import os
import secrets
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

import yaml
from scipy.stats import ttest_rel

from demo import BUCKET, EXAMPLES, OUTPUT, console, interrupt, report, start
from headway_api import contract
from seaweed import SeaweedServer

REPEATS = 5
"""Seeds with which both sets of parameters are trained for the comparison."""
SIGNIFICANT = 0.05
METRIC = "test_accuracy"


@dataclass(frozen=True)
class Trial:
    """A run of a configuration, read from its TrainingJob.

    Attributes:
        index: of the configuration.
        params: by name, typed.
        phase: of its job.
        curve: (step, value) of the objective by ascending step.
        step: optimizer steps done.
        resumed: the step that it last went on from; None if it never paused.
    """

    index: int
    params: dict[str, Any]
    phase: str
    curve: Sequence[tuple[int, float]]
    step: int
    resumed: int | None


def trials_of(state: Path) -> list[Trial]:
    """All runs of the sweep in a state folder, by index and number."""
    objects = json.loads((state / "cluster.json").read_text())["collections"]
    jobs = next(each["objects"] for each in objects if each["resource"]["kind"] == "TrainingJob")

    def place(job: dict[str, Any]) -> tuple[int, int]:
        labels = job["metadata"]["labels"]
        return int(labels[contract.LABEL_TRIAL]), int(labels[contract.LABEL_RUN])

    return [_trial(job) for job in sorted(jobs, key=place)]


def _trial(job: dict[str, Any]) -> Trial:
    metadata, status = job["metadata"], job["status"]
    seen = status.get("observations") or [{"curve": []}]
    return Trial(
        index=int(metadata["labels"][contract.LABEL_TRIAL]),
        params=json.loads(metadata["annotations"][contract.ANNOTATION_TRIAL])["params"],
        phase=status["phase"],
        curve=[(point["step"], float(point["value"])) for point in seen[0]["curve"]],
        step=(status.get("progress") or {}).get("step") or 0,
        resumed=(status.get("checkpoint") or {}).get("resumedFromStep"),
    )


def rungs(sweep: dict[str, Any]) -> tuple[int, int, int]:
    """Steps at which trials of the example pause, and of a whole training."""
    rule = sweep["spec"]["stopping"]["asha"]
    factor = rule.get("reductionFactor", 3)
    return rule["minSteps"], rule["minSteps"] * factor, rule["maxSteps"]


def comparison(sweep: dict[str, Any], found: dict[str, Any], seed: int) -> dict[str, Any]:
    """A sweep that tries the template's own parameters and those found, with several seeds."""
    spec = sweep["spec"]
    own = spec["template"]["spec"]["parameters"]
    usual = {each["name"]: yaml.safe_load(own[each["name"]]) for each in spec["parameters"]}
    return {
        **{name: sweep[name] for name in ("apiVersion", "kind")},
        "metadata": {"name": "compare"},
        "spec": {
            "parameters": spec["parameters"],
            "objectives": [{"metric": METRIC, "direction": "Maximize", "take": "Last"}],
            "initialPoints": [usual, found],
            "maxTrials": 2,
            "parallelTrials": spec["parallelTrials"],
            "repeats": {"count": REPEATS},
            "seed": seed,
            "template": spec["template"],
        },
    }


def run(server: SeaweedServer, manifest: dict[str, Any], state: Path) -> dict[str, Any]:
    """`headway sweep run` to its end; the final object.

    Raises:
        KeyboardInterrupt: the user has had enough; all trials have ended.
    """
    file = state.with_suffix(".yaml")
    file.write_text(yaml.safe_dump(manifest, sort_keys=False))
    process: subprocess.Popen[str] = start(server, file, state, "sweep", "run")
    try:
        text, _ = process.communicate()
    except KeyboardInterrupt:
        console.print("interrupted: ending the trials", style="yellow")
        process.send_signal(signal.SIGTERM)
        process.wait()
        raise
    found: dict[str, Any] = json.loads(text) if text.strip() else {}
    return found


# --- what happened --------------------------------------------------------------------------------

Row = tuple[str, str, bool]


def searched(sweep: dict[str, Any], trials: Sequence[Trial]) -> list[Row]:
    """Rows about the search."""
    status, spec = sweep.get("status") or {}, sweep["spec"]
    *pauses, whole = rungs(sweep)
    done = sum(trial.step for trial in trials)
    went_on = [trial for trial in trials if trial.step > pauses[0]]
    resumed = [trial for trial in went_on if trial.resumed in pauses]
    best = status.get("best") or {}
    value = (best.get("values") or ["none"])[0]
    return [
        ("phase", f"{status.get('phase')}: {status.get('message')}", _succeeded(sweep)),
        (
            "steps",
            f"{done:,} instead of {len(trials) * whole:,} for {len(trials)} whole trainings",
            len(trials) == spec["maxTrials"] and done < len(trials) * whole / 2,
        ),
        (
            "promoted",
            f"{len(went_on)} trials, {len(resumed)} of them from their checkpoints",
            len(went_on) == len(resumed) > 0,
        ),
        ("best of the search", f"trial {best.get('index')}, val_accuracy {value}", bool(best)),
    ]


def _succeeded(sweep: dict[str, Any]) -> bool:
    return bool((sweep.get("status") or {}).get("phase") == "Succeeded")


def compared(usual: Sequence[float], found: Sequence[float]) -> list[Row]:
    """Rows about the comparison: accuracies by seed, in the same order."""
    if not len(usual) == len(found) == REPEATS:
        said = f"{len(usual)} and {len(found)} of {REPEATS} trainings have ended"
        return [("comparison", said, False)]
    chance = ttest_rel(found, usual, alternative="greater").pvalue
    better = fmean(found) - fmean(usual)
    return [
        ("parameters of the template", f"test accuracy {_spread(usual)}", True),
        ("parameters found", f"test accuracy {_spread(found)}", True),
        (
            "improvement",
            f"{better:+.3f} (paired t-test: p = {chance:.1g})",
            bool(better > 0 and chance < SIGNIFICANT),
        ),
    ]


def _spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values):.3f} over {len(values)} seeds"


def accuracies(trials: Sequence[Trial], index: int) -> list[float]:
    """The test accuracy of each run of a configuration that has come to its end."""
    return [t.curve[-1][1] for t in trials if t.index == index and t.phase == "Succeeded"]


# --- the picture ----------------------------------------------------------------------------------


def draw(
    sweep: dict[str, Any],
    trials: Sequence[Trial],
    usual: Sequence[float],
    found: Sequence[float],
    path: Path,
) -> None:
    """The course of all trials, and what the result is worth."""
    os.environ.setdefault("MPLCONFIGDIR", str(OUTPUT / "matplotlib"))
    import matplotlib as mpl  # noqa: PLC0415 (its cache folder has to be set first)

    mpl.use("Agg")
    import matplotlib.pyplot as plt  # noqa: PLC0415

    figure, (left, right) = plt.subplots(
        1, 2, figsize=(12, 5), width_ratios=(3, 1), layout="constrained"
    )
    _draw_search(left, sweep, trials)
    _draw_comparison(right, usual, found)
    figure.savefig(path, dpi=110)


def _draw_search(axis: Any, sweep: dict[str, Any], trials: Sequence[Trial]) -> None:
    *pauses, whole = rungs(sweep)
    best = (sweep["status"].get("best") or {}).get("index")
    for trial in sorted(trials, key=lambda each: (each.index == best, each.step)):
        steps, values = [step for step, _ in trial.curve], [value for _, value in trial.curve]
        colour = "crimson" if trial.index == best else ("grey", "steelblue")[trial.step > pauses[0]]
        width, alpha = (2.4, 1.0) if trial.index == best else (1.2, 0.65)
        axis.plot(steps, values, color=colour, linewidth=width, alpha=alpha)
        at = dict(trial.curve)
        for rung in pauses:
            if rung not in at:
                continue
            shape = "^" if trial.step > rung else "x"
            axis.plot(rung, at[rung], shape, color=colour, markersize=8, alpha=max(alpha, 0.8))
        if trial.step >= whole:
            axis.plot(steps[-1], values[-1], "o", color=colour, markersize=7)
    for rung in pauses:
        axis.axvline(rung, color="black", linestyle=":", linewidth=1, alpha=0.5)
    values = sorted(value for trial in trials for _, value in trial.curve)
    axis.set_ylim(max(values[len(values) // 8] - 0.05, 0), 1.0)
    axis.set_xscale("log")
    axis.set_xticks([*pauses, whole], [str(step) for step in (*pauses, whole)])
    axis.minorticks_off()
    axis.set_xlabel("optimizer step")
    axis.set_ylabel("validation accuracy")
    axis.grid(alpha=0.3)
    for shape, colour, said in (
        ("^", "steelblue", "paused, and promoted: goes on from its checkpoint"),
        ("x", "grey", "paused, and never went on"),
        ("o", "steelblue", "trained to the end"),
        ("-", "crimson", f"best: trial {best}"),
    ):
        axis.plot([], [], shape, color=colour, label=said, linewidth=2.4)
    axis.legend(loc="lower right")
    done = sum(trial.step for trial in trials)
    axis.set_title(
        f"{len(trials)} trials in {done:,} steps; to train all to the end takes "
        f"{len(trials) * whole:,}"
    )


def _draw_comparison(axis: Any, usual: Sequence[float], found: Sequence[float]) -> None:
    for a, b in zip(usual, found, strict=True):
        axis.plot([0, 1], [a, b], color="grey", alpha=0.4, linewidth=1)
    for place, values, colour in ((0, usual, "grey"), (1, found, "crimson")):
        axis.plot([place] * len(values), values, "o", color=colour, alpha=0.7)
        mean = fmean(values)
        axis.plot([place - 0.18, place + 0.18], [mean, mean], color=colour, linewidth=3)
        side, where = ((-0.24, "right"), (0.24, "left"))[place]
        axis.text(place + side, mean, f"{mean:.3f}", ha=where, va="center", color=colour)
    axis.set_xlim(-0.75, 1.75)
    axis.set_xticks([0, 1], ["template's\nparameters", "parameters\nfound"])
    axis.set_ylabel("test accuracy")
    axis.grid(alpha=0.3, axis="y")
    axis.set_title(f"both to the end, {len(usual)} seeds")


def demo(seed: int) -> int:
    """Run it all; returns the exit status."""
    shutil.rmtree(OUTPUT, ignore_errors=True)
    OUTPUT.mkdir(parents=True)
    console.print(f"everything this demo writes is in {OUTPUT}", highlight=False, soft_wrap=True)
    manifest = yaml.safe_load((EXAMPLES / "sweep" / "sweep.yaml").read_text())
    manifest["spec"]["seed"] = seed
    search, check, picture = OUTPUT / "search", OUTPUT / "compare", OUTPUT / "sweep.png"
    with SeaweedServer(OUTPUT / "s3", "demo", secrets.token_hex(16)) as server:
        server.make_bucket(BUCKET)
        try:
            console.print(f"\n[bold]the search[/] (seed {seed})")
            sweep = run(server, manifest, search)
            trials = trials_of(search)
            if not _succeeded(sweep):
                return report(searched(sweep, trials), picture, "picture")
            best = trials[sweep["status"]["best"]["index"]]
            console.print(f"\n[bold]the comparison[/], each with {REPEATS} new seeds")
            run(server, comparison(manifest, best.params, seed + 1), check)
        except KeyboardInterrupt:
            return 130
    runs = trials_of(check)
    usual, found = accuracies(runs, 0), accuracies(runs, 1)
    rows = searched(sweep, trials) + compared(usual, found)
    if len(usual) == len(found) > 0:
        draw(sweep, trials, usual, found, picture)
    (OUTPUT / "sweep.json").write_text(json.dumps(sweep, indent=2))
    return report(rows, picture, "picture")


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, interrupt)
    options = argparse.ArgumentParser(description="Search for good parameters, and see their worth")
    options.add_argument("--seed", type=int, default=1, help="of the search (default: 1)")
    sys.exit(demo(options.parse_args().seed))
