"""Handwritten digits with Horovod: what a script of Horovod needs to resume exactly is headway.

Runs under Headway on any number of workers, and as a plain `python train.py` on one.
"""

import time

import horovod.torch as hvd
import torch
from sklearn.datasets import load_digits
from torch import nn
from torch.utils.data import TensorDataset

import headway


def digits() -> tuple[TensorDataset, TensorDataset]:
    """1,797 images of 8x8 pixels that ship with scikit-learn; every fifth is for validation."""
    data = load_digits()
    images = torch.tensor(data.images, dtype=torch.float32).unsqueeze(1) / 16
    labels = torch.tensor(data.target)
    held_out = torch.arange(len(labels)) % 5 == 0
    train = TensorDataset(images[~held_out], labels[~held_out])
    return train, TensorDataset(images[held_out], labels[held_out])


def network() -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, 16, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(16 * 4 * 4, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
    )


@torch.no_grad()
def accuracy(model: nn.Module, dataset: TensorDataset, device: torch.device) -> torch.Tensor:
    """Of this rank's share of the data, averaged over all ranks."""
    model.eval()
    images, labels = (t[hvd.rank() :: hvd.size()].to(device) for t in dataset.tensors)
    right = (model(images).argmax(1) == labels).float().mean()
    model.train()
    return hvd.allreduce(right, name="accuracy")


def main() -> None:
    hvd.init()
    run = headway.init(seed=1)
    epochs, delay = run.param("epochs", 20), run.param("step_delay_ms", 0) / 1000
    train, validation = digits()
    loader = run.loader(train, global_batch_size=run.param("batch_size", 96))

    model = network().to(run.device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=run.param("lr", 0.003))
    optimizer = hvd.DistributedOptimizer(optimizer, named_parameters=model.named_parameters())
    if not run.checkpointing(model=model, optimizer=optimizer):
        # A fresh start: rank 0's weights count. What was restored is the same everywhere.
        hvd.broadcast_parameters(model.state_dict(), root_rank=0)

    for epoch in run.epochs(epochs):
        for images, labels in loader:
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(model(images.to(run.device)), labels.to(run.device))
            loss.backward()
            optimizer.step()
            time.sleep(delay)  # makes a small example long enough to watch
            run.step(loss=loss)
        run.log(val_accuracy=accuracy(model, validation, run.device))
        if run.rank == 0:
            print(f"epoch {epoch}: validation accuracy {run.metrics['val_accuracy']:.3f}")
    run.finish()


if __name__ == "__main__":
    main()
