"""A training without a network that reports what $KIND says, and appends each step to
$FOLDER/<trial>."""

import math
import os
import signal
import time
from pathlib import Path

import torch
from torch.utils.data import TensorDataset

import headway

STEPS = 27
kind, folder = os.environ.get("KIND", "good"), Path(os.environ["FOLDER"])
trial = os.environ["TRIAL"]
run = headway.init(seed=1)
state = torch.nn.Linear(1, 1)
loader = run.loader(TensorDataset(torch.arange(STEPS)), global_batch_size=1)
run.checkpointing(state=state)
lr = run.param("lr", 0.1)
steps = folder / trial
if kind == "fails":
    raise SystemExit(f"trial {trial} can't be trained")
for _ in run.epochs(1):
    for _ in loader:
        step = run.step_count + 1
        with steps.open("a") as file:  # where an optimizer would step
            file.write(f"{step}\n")
        run.step()
        value = step / STEPS - math.log10(lr) ** 2
        match kind:
            case "silent":
                pass
            case "nan":
                run.log(val_accuracy=math.nan)
            case "infinite":
                run.log(val_accuracy=-math.inf)
            case "sometimes nan":
                run.log(val_accuracy=math.nan if step % 2 else value)
            case "twice":
                run.log(val_accuracy=value - 1)
                run.log(val_accuracy=value)
            case "often":
                for number in range(200):
                    run.log(val_accuracy=value, **{f"other{number % 20}": float(number)})
            case "late":
                if step == STEPS:
                    run.log(val_accuracy=value)
            case _:
                run.log(val_accuracy=value)
        if kind == "killed" and step == STEPS // 2 and not (folder / f"killed-{trial}").exists():
            (folder / f"killed-{trial}").touch()
            os.kill(os.getpid(), signal.SIGKILL)
        while (folder / f"wait-at-{step}").exists():
            time.sleep(0.05)
run.finish()
