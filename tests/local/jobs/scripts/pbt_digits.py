"""Trains on real digits and writes what a copy of another trial has to show to $FOLDER/<trial>:
the weights that it starts with, and for each step the learning rate and the weights after it."""

import hashlib
import os
import time
from pathlib import Path

import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import headway


def fingerprint(model: nn.Module) -> str:
    state = b"".join(tensor.numpy().tobytes() for tensor in model.state_dict().values())
    return hashlib.sha256(state).hexdigest()[:16]


torch.set_num_threads(1)
run = headway.init(seed=int(os.environ["HEADWAY_PARAM_SEED"]))
data = load_digits()
images = torch.tensor(data.data, dtype=torch.float32) / 16
labels = torch.tensor(data.target)
held_out = torch.arange(len(labels)) % 5 == 0
train = TensorDataset(images[~held_out], labels[~held_out])
loader = run.loader(train, global_batch_size=96)
model = nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))
optimizer = torch.optim.SGD(model.parameters(), lr=run.param("lr", 0.1), momentum=0.9)
run.checkpointing(model=model, optimizer=optimizer)
for group in optimizer.param_groups:
    group["lr"] = run.param("lr", 0.1)  # the checkpoint's is that of the trial it is a copy of
lines = Path(os.environ["FOLDER"], os.environ["TRIAL"])
with lines.open("a") as file:
    file.write(f"start {run.step_count} {fingerprint(model)}\n")
for _ in run.epochs(1000):
    for batch, targets in loader:
        loss = nn.functional.cross_entropy(model(batch), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        rate = optimizer.param_groups[0]["lr"]
        with lines.open("a") as file:
            file.write(f"{run.step_count + 1} {rate!r} {fingerprint(model)}\n")
        time.sleep(run.param("delay_ms", 0) / 1000)
        run.step(loss=loss)
        if run.step_count % 5 == 0:
            with torch.no_grad():
                right = model(images[held_out]).argmax(1) == labels[held_out]
            run.log(val_accuracy=right.float().mean())
run.finish()
