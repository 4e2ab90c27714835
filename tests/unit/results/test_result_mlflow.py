"""Results in MLflow, where that is installed: nothing is lost, and nothing is doubled."""

import math
import warnings
from pathlib import Path
from typing import Any

import pytest
from result_worlds import a_job, a_sweep, course, found

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    mlflow: Any = pytest.importorskip("mlflow", reason="pip install mlflow")

from headway_operator.results.to_mlflow import to_mlflow

pytestmark = pytest.mark.filterwarnings("default")
PARAMS = {"lr": 0.01, "optimizer": "sgd", "momentum": 0.3, "layers": 1, "epochs": 20}


def runs(uri: str) -> dict[str, Any]:
    """Status and course of each trial's run, by the number of the trial."""
    client = mlflow.MlflowClient(tracking_uri=uri)
    place = client.get_experiment_by_name("digits").experiment_id
    told = {}
    for run in client.search_runs([place]):
        history = client.get_metric_history(run.info.run_id, "loss") if run.data.metrics else []
        told[run.data.tags["headway.trial"]] = (
            run.info.status,
            sorted((point.step, point.value) for point in history),
        )
    return told


def test_trials_are_runs_and_exporting_again_doubles_nothing(tmp_path: Path) -> None:
    uri, sweep, points = f"sqlite:///{tmp_path}/m.db", a_sweep(), course(1.0)
    done = a_job(sweep, 0, PARAMS, {"loss": points})
    failed = a_job(sweep, 2, PARAMS, phase="Failed", message="no GPU")
    running = a_job(sweep, 1, PARAMS, {"loss": points[:2]}, phase="Running")
    before = found(sweep, done, running, failed)
    assert to_mlflow(before, uri) == 3
    first = runs(uri)
    assert first == {
        "0": ("FINISHED", points),
        "1": ("RUNNING", points[:2]),
        "2": ("FAILED", []),
    }
    to_mlflow(before, uri)
    assert runs(uri) == first

    ended = a_job(sweep, 1, PARAMS, {"loss": points})
    new = a_job(sweep, 3, PARAMS, {"loss": [(1, math.nan), (2, 0.5)]})
    after = found(sweep, done, ended, failed, new)
    assert to_mlflow(after, uri) == 2
    assert runs(uri)["1"] == ("FINISHED", points)
    assert len(runs(uri)["3"][1]) == 2
    assert to_mlflow(after, uri) == 0
