"""Handwritten digits with PyTorch DDP, and everything about the training left to parameters.

The images come in the order of the people who wrote them. The first 600 are trained on, the next
400 are what a search may choose by, and the last 797 are for the test: other people's handwriting.
"""

import os
from importlib.metadata import distribution

import numpy as np
import torch
from torch import nn
from torch.nn.functional import affine_grid, cross_entropy, grid_sample
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import TensorDataset

import headway


def digits() -> tuple[TensorDataset, TensorDataset, TensorDataset]:
    """1,797 images of 8x8 pixels that ship with scikit-learn: train, validation and test."""
    # Only the file: importing scikit-learn takes longer than the training up to the first rung.
    file = distribution("scikit-learn").locate_file("sklearn/datasets/data/digits.csv.gz")
    table = torch.tensor(np.loadtxt(file, delimiter=","))
    images, labels = table[:, :-1].float().view(-1, 1, 8, 8) / 16, table[:, -1].long()
    train, validation, test = slice(600), slice(600, 1000), slice(1000, None)
    return tuple(TensorDataset(images[part], labels[part]) for part in (train, validation, test))


def network(width: int, dropout: float) -> nn.Module:
    return nn.Sequential(
        nn.Conv2d(1, width, 3, padding=1),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.Conv2d(width, 2 * width, 3, padding=1),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Dropout(dropout),
        nn.Linear(2 * width * 4 * 4, 10),
    )


def moved(images: torch.Tensor, shift: float, turn: float) -> torch.Tensor:
    """Each image shifted by up to `shift` pixels and turned by up to `turn` degrees, at random."""
    angles = torch.deg2rad(turn * (2 * torch.rand(len(images)) - 1))
    shifts = shift * (2 * torch.rand(len(images), 2) - 1) / 4  # the image is 2 wide
    rotation = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], 1)
    matrices = torch.cat([rotation.view(-1, 2, 2), shifts.unsqueeze(2)], 2).to(images.device)
    grid = affine_grid(matrices, list(images.shape), align_corners=False)
    return grid_sample(images, grid, align_corners=False)


@torch.no_grad()
def accuracy(model: nn.Module, dataset: TensorDataset, device: torch.device) -> float:
    model.eval()
    images, labels = (t.to(device) for t in dataset.tensors)
    right = (model(images).argmax(1) == labels).float().mean().item()
    model.train()
    return right


def main() -> None:
    torch.set_num_threads(1)
    run = headway.init(seed=int(os.environ.get("HEADWAY_PARAM_SEED", "1")))
    epochs = run.param("epochs", 27)
    train, validation, test = digits()
    loader = run.loader(train, global_batch_size=run.param("batch_size", 60))
    network_ = network(run.param("width", 16), run.param("dropout", 0.0))
    model = DistributedDataParallel(network_.to(run.device))
    optimizer = torch.optim.AdamW(
        model.parameters(),
        lr=run.param("lr", 0.001),
        weight_decay=run.param("weight_decay", 0.01),
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, epochs)
    run.checkpointing(model=model, optimizer=optimizer, schedule=schedule)

    for _ in run.epochs(epochs):
        for images, labels in loader:
            seen = moved(images, run.param("shift", 0.0), run.param("turn", 0.0))
            output = model(seen.to(run.device))
            loss = cross_entropy(
                output, labels.to(run.device), label_smoothing=run.param("smoothing", 0.0)
            )
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.step(loss=loss)
        schedule.step()
        run.log(val_accuracy=accuracy(model.module, validation, run.device))
    run.log(test_accuracy=accuracy(model.module, test, run.device))
    run.finish()


if __name__ == "__main__":
    main()
