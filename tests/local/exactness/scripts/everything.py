"""Trains with one of everything that an exact resume has to bring back.

Appends to $TRACE.<rank>, for each step, its loss as exact hexadecimal and a digest of all samples
so far in their order over all ranks; and for each epoch, what a validation found. Counts the
samples of each epoch, and stops if one is missing or is there twice.
"""

import contextlib
import hashlib
import os
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.optim.lr_scheduler import OneCycleLR
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.data import Dataset

import headway

SAMPLES = 103


class Images(Dataset[Any]):
    """Images that every access shifts, mirrors and blurs by chance, as augmentation does."""

    def __init__(self) -> None:
        generator = torch.Generator().manual_seed(3)
        self.images = torch.randn(SAMPLES, 3, 8, 8, generator=generator)

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> Any:
        image = self.images[index] + 0.1 * torch.randn(3, 8, 8)
        image = image.roll(random.randrange(3), dims=1) * float(np.random.uniform(0.9, 1.1))
        return index, image, self.images[index].mean()


class Net(nn.Module):
    """With statistics, dropout, tied weights, a frozen layer and one that gets no gradients."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 16, 3).to(memory_format=torch.channels_last)
        self.norm = nn.BatchNorm2d(16)
        self.drop = nn.Dropout(0.3)
        self.first, self.second = nn.Linear(16, 16), nn.Linear(16, 16)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(16, 16).requires_grad_(False)
        self.wide, self.last = nn.Linear(16, 2000), nn.Linear(2000, 1)  # copied beside the steps
        self.unused = nn.Linear(16, 300)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        hidden = self.drop(self.norm(self.conv(images)).relu().mean((2, 3)))
        hidden = self.frozen(self.second(self.first(hidden).relu()))
        return self.last(self.wide(hidden).relu()).squeeze(1)


class Average:
    """A hand-written EMA that puts its weights into the model for a validation."""

    def __init__(self, model: nn.Module) -> None:
        self.decay = np.float32(0.5)
        self.shadow = {name: value.clone() for name, value in model.state_dict().items()}

    def update(self, model: nn.Module) -> None:
        self.decay += (np.float32(0.99) - self.decay) * np.float32(0.1)
        for name, value in model.state_dict().items():
            if value.is_floating_point():
                self.shadow[name].lerp_(value, float(1 - self.decay))

    @contextlib.contextmanager
    def shown_in(self, model: nn.Module) -> Any:
        kept = {name: param.data.clone() for name, param in model.named_parameters()}
        for name, param in model.named_parameters():
            param.data.copy_(self.shadow[name])  # which torch does not notice
        yield
        for name, param in model.named_parameters():
            param.data.copy_(kept[name])

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow, self.decay = state["shadow"], state["decay"]


class Seen:
    """How often each sample was there in this epoch, and a digest of their order."""

    def __init__(self) -> None:
        self.counts, self.digest = torch.zeros(SAMPLES, dtype=torch.int64), b""

    def add(self, indices: torch.Tensor) -> None:
        parts: list[Any] = [None] * run.world_size
        dist.all_gather_object(parts, indices.tolist())
        together = [index for part in parts for index in part]
        self.counts += torch.bincount(torch.tensor(together), minlength=SAMPLES)
        self.digest = hashlib.sha256(self.digest + repr(together).encode()).digest()

    def check(self) -> None:
        assert self.counts.eq(1).all(), f"epoch {epoch}: samples were seen {self.counts} times"
        self.counts.zero_()

    def state_dict(self) -> dict[str, Any]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, Any]) -> None:
        vars(self).update(state)


def note(*words: object) -> None:
    with Path(f"{os.environ['TRACE']}.{run.rank}").open("a") as file:
        file.write(" ".join(map(str, words)) + "\n")


torch.set_num_threads(1)
run = headway.init(seed=7)
workers, accumulate = run.param("loader_workers", 0), run.param("accumulate", 3)
loader = run.loader(
    Images(), run.param("batch_size", 10), num_workers=workers, persistent_workers=workers > 1
)
net = Net().to(run.device)
model = DistributedDataParallel(net, find_unused_parameters=True)
params = dict(net.named_parameters())
slow = torch.optim.SGD([params.pop("conv.weight")], lr=1e-5, momentum=0.9)
fast = torch.optim.AdamW(params.values(), lr=0.01)  # also of what is frozen, or has no gradient
epochs = run.param("epochs", 6)
schedule = OneCycleLR(fast, 0.02, epochs * -(-len(loader) // accumulate) + 1)
scaler = torch.amp.GradScaler("cpu", init_scale=2.0**124, growth_interval=5)  # overflows
ema, average = AveragedModel(net, multi_avg_fn=get_ema_multi_avg_fn(0.9)), Average(net)
seen = Seen()
run.checkpointing(
    model=model, slow=slow, fast=fast, schedule=schedule, scaler=scaler, ema=ema, average=average,
    seen=seen,
)  # fmt: skip
noise = torch.randn(1)  # drawn once, wherever the training goes on from

for epoch in run.epochs(epochs):
    strength = random.uniform(0.5, 1.5)  # drawn once an epoch
    for number, (indices, images, targets) in enumerate(loader, 1):
        seen.add(indices)
        steps = number % accumulate == 0 or number == len(loader)
        with contextlib.nullcontext() if steps else model.no_sync():
            output = model(images + noise * 0.01)
            loss = 1000 * nn.functional.mse_loss(output, targets * strength) / accumulate
            scaler.scale(loss).backward()
        time.sleep(run.param("delay_ms", 0) / 1000)
        if steps:
            for optimizer in (slow, fast):
                scaler.step(optimizer)
                optimizer.zero_grad()
            scaler.update()
            schedule.step()
            ema.update_parameters(net)
            average.update(net)
            words = ("step", run.step_count + 1, loss.item().hex(), seen.digest.hex()[:16])
            note(*words, scaler.get_scale(), schedule.get_last_lr()[0])
            run.step(loss=loss)
    seen.check()
    with average.shown_in(net), torch.no_grad():  # dropout is on, and draws
        found = sum(net(torch.randn(8, 3, 8, 8)).sum().item() for _ in range(4))
    if run.rank == 0:  # the others' buffers are their own until the next forward pass
        averages = (ema.module.last.bias, net.norm.running_mean, average.shadow["norm.running_var"])
        note("epoch", epoch, found.hex(), *(value.sum().item().hex() for value in averages))
run.finish()
