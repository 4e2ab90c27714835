"""A sweep that has really run on this machine, and what the commands make of its state."""

from __future__ import annotations

import csv
import io
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

SCRIPT = """
import headway

run = headway.init(seed=1)
for step in range(1, 6):
    run.step(loss=run.param("x", 0.0) + 1.0 / step)
assert run.param("fate", "") != "fails", "as it was told to"
run.finish()
"""
SWEEP = {
    "apiVersion": "headway.dev/v1alpha1",
    "kind": "Sweep",
    "metadata": {"name": "tiny"},
    "spec": {
        "parameters": [
            {"name": "x", "choice": [0.5, 2.0]},
            {"name": "fate", "choice": ["lives", "fails"]},
        ],
        "objectives": [{"metric": "loss"}],
        "algorithm": {"name": "grid"},
        "maxTrials": 4,
        "parallelTrials": 2,
        "maxFailedTrials": 4,
        "template": {
            "spec": {"command": ["python", "-c", SCRIPT], "failurePolicy": {"maxRestarts": 0}}
        },
    },
}


def sweep(folder: Path, *words: str, seconds: float = 240) -> subprocess.CompletedProcess[str]:
    """`headway sweep …` as a user runs it."""
    code = "from headway_operator.sweep_command import app; app()"
    return subprocess.run(
        [sys.executable, "-c", code, *words],
        cwd=folder,
        env={**os.environ, "COLUMNS": "80"},
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )


@pytest.mark.timeout(400)  # torch is imported four times
def test_a_sweep_that_has_run_here_is_shown_exported_and_reported(tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(yaml.safe_dump(SWEEP))
    ran = sweep(tmp_path, "run", "-f", "sweep.yaml", "-o", "json")
    assert ran.returncode == 0, ran.stderr
    status = json.loads(ran.stdout)["status"]
    assert (status["phase"], status["counts"]["failed"]) == ("Succeeded", 2)

    told = json.loads(sweep(tmp_path, "show", "tiny", "-o", "json").stdout)
    assert told["best"] == status["best"]["index"]
    assert told["counts"] == status["counts"] | {"running": 0, "paused": 0, "stopped": 0}
    best = next(trial for trial in told["trials"] if trial["index"] == told["best"])
    assert best["parameters"] == {"x": 0.5, "fate": "lives"}
    assert best["values"] == [pytest.approx(0.7)]
    assert best["started"] <= best["ended"]

    lines = list(
        csv.DictReader(io.StringIO(sweep(tmp_path, "export", "tiny", "--to", "csv").stdout))
    )
    assert sorted(line["state"] for line in lines) == ["Complete", "Complete", "Failed", "Failed"]
    assert all(line["why"] for line in lines if line["state"] == "Failed")

    reported = sweep(tmp_path, "report", "tiny")
    assert reported.returncode == 0, reported.stderr
    html = (tmp_path / "tiny.html").read_text()
    assert "Failed trials" in html
    assert "Timeline" in html
