"""A job that begins with what was imported from elsewhere."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import torch

from headway.checkpoint.layout import CheckpointId
from headway.interop.importing import import_checkpoint
from headway.interop.loading import load

SCRIPT = """
import headway, torch
run = headway.init()
model = torch.nn.Linear(3, 2)
optimizer = torch.optim.AdamW(model.parameters())
assert run.checkpointing(model=model, optimizer=optimizer)
torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, "found.pt")
model(torch.ones(1, 3)).sum().backward()
optimizer.step()
run.step()
run.finish()
"""


def test_a_job_resumes_from_an_imported_checkpoint(tmp_path: Path) -> None:
    model = torch.nn.Linear(3, 2)
    optimizer = torch.optim.AdamW(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    import_checkpoint(tmp_path / "state.pt", str(tmp_path / "imported"), step=50)
    (tmp_path / "train.py").write_text(SCRIPT)
    job = {
        "apiVersion": "headway.dev/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": "finetune"},
        "spec": {
            "command": ["python", "train.py"],
            "storage": {"uri": str(tmp_path / "jobs")},
            "checkpoint": {"resumeFrom": str(tmp_path / "imported")},
        },
    }
    (tmp_path / "job.yaml").write_text(json.dumps(job))
    command = [sys.executable, "-m", "headway.cli", "run", "-f", "job.yaml", "-o", "json"]
    done = subprocess.run(command, cwd=tmp_path, check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = torch.load(tmp_path / "found.pt")
    assert str(found) == str(state)
    assert torch.equal(found["model"]["weight"], state["model"]["weight"])
    (folder,) = (tmp_path / "jobs").iterdir()
    assert load(str(folder)).checkpoint == CheckpointId(generation=1, step=51)
