"""A training without a network that reports what $KIND says, and appends each step to
$FOLDER/<trial>."""

import math
import os
import signal
import time
from pathlib import Path

import torch

import headway

STEPS = 27
kind, folder = os.environ.get("KIND", "good"), Path(os.environ["FOLDER"])
trial = os.environ["TRIAL"]
run = headway.init(seed=1)
state = torch.nn.Linear(1, 1)
run.checkpointing(state=state)
lr = run.param("lr", 0.1)
steps = folder / trial
if kind == "fails":
    raise SystemExit(f"trial {trial} can't be trained")
while run.step_count < STEPS:
    step = run.step_count + 1
    run.step()
    with steps.open("a") as file:
        file.write(f"{step}\n")
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
