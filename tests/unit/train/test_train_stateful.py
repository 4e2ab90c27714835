"""Every kind of training state, through a checkpoint in memory and one in storage, bit for bit."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.distributed.fsdp import FullyShardedDataParallel
from torch.optim.lr_scheduler import (
    ChainedScheduler,
    CosineAnnealingLR,
    CyclicLR,
    LambdaLR,
    LinearLR,
    MultiStepLR,
    OneCycleLR,
    ReduceLROnPlateau,
    SequentialLR,
)
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from train_ranks import as_rank

from headway.checkpoint.jsontree import dumps, loads
from headway.checkpoint.layout import CheckpointId
from headway.train import stateful
from headway.train.found import Found
from headway.train.state import flatten

CPU = torch.device("cpu")


def found_of(objects: Mapping[str, Any], *, borrowed: bool = False) -> Found:
    """A checkpoint of these objects, as it comes back."""
    tensors: dict[str, torch.Tensor] = {}
    trees: dict[str, Any] = {"names": sorted(objects)}
    for name, value in objects.items():
        trees[name] = flatten(value.state_dict(), name, tensors)
    return Found(
        id=CheckpointId(1, 1),
        objects=loads(dumps(trees)),
        rank_state=None,
        tensors={name: tensor.clone().contiguous() for name, tensor in tensors.items()},
        borrowed=borrowed,
        source="memory" if borrowed else "storage",
    )


def load(objects: Mapping[str, Any], found: Found) -> None:
    for name, value in objects.items():
        stateful.load(name, value, found, CPU)


class Net(nn.Module):
    """Convolutions, statistics, dropout, tied weights, a frozen layer and one never used."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)
        self.norm = nn.BatchNorm2d(8)
        self.first = nn.Linear(8, 8)
        self.second = nn.Linear(8, 8)
        self.second.weight = self.first.weight
        self.frozen = nn.Linear(8, 8).requires_grad_(False)
        self.unused = nn.Linear(8, 8)
        self.calls = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.calls += 1
        hidden = self.norm(self.conv(images)).relu().mean((2, 3))
        return self.frozen(self.second(self.first(hidden)).relu()).square().mean()

    def get_extra_state(self) -> Any:
        return {"calls": torch.tensor(self.calls)}

    def set_extra_state(self, state: Any) -> None:
        self.kept = state["calls"]
        self.calls = int(self.kept)


class Average:
    """A hand-written EMA, as most are."""

    def __init__(self, model: nn.Module) -> None:
        self.decay = np.float32(0.9)
        self.shadow = {name: value.clone() for name, value in model.state_dict().items()
                       if isinstance(value, torch.Tensor)}  # fmt: skip

    def update(self, model: nn.Module) -> None:
        self.decay = self.decay * np.float32(0.999)
        for name, value in self.shadow.items():
            if value.is_floating_point():
                value.lerp_(model.state_dict()[name], float(1 - self.decay))

    def state_dict(self) -> dict[str, Any]:
        return {"shadow": self.shadow, "decay": self.decay}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.shadow, self.decay = state["shadow"], state["decay"]


class Wide(torch.optim.Optimizer):
    """Keeps its state in float32 whatever the parameter is."""

    def __init__(self, params: Any) -> None:
        super().__init__(params, {"lr": 0.01})

    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            for p in group["params"]:
                if p.grad is not None:
                    state = self.state[p]
                    state.setdefault("mean", torch.zeros_like(p, dtype=torch.float32))
                    state["mean"].lerp_(p.grad.float(), 0.1)
                    p.data.sub_(state["mean"].to(p.dtype), alpha=group["lr"])


OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "adamw": lambda params: torch.optim.AdamW(params, lr=0.01),
    "amsgrad, fused": lambda params: torch.optim.Adam(params, lr=0.01, amsgrad=True, fused=True),
    "tensor lr": lambda params: torch.optim.AdamW(params, lr=torch.tensor(0.01), foreach=False),
    "sgd": lambda params: torch.optim.SGD(params, lr=0.01),
    "momentum": lambda params: torch.optim.SGD(params, lr=0.01, momentum=0.9),
    "adagrad": lambda params: torch.optim.Adagrad(params, lr=0.01),
    "wide": Wide,
}
SCHEDULERS: dict[str, Callable[[Any], Any]] = {
    "multistep": lambda o: MultiStepLR(o, [2, 2, 5]),
    "onecycle": lambda o: OneCycleLR(o, 0.1, 20, cycle_momentum=False),
    "cyclic": lambda o: CyclicLR(o, 0.01, 0.1, 3, cycle_momentum=False),
    "lambda": lambda o: LambdaLR(o, lambda step: 0.9**step),
    "plateau": ReduceLROnPlateau,
    "sequential": lambda o: SequentialLR(
        o, [LinearLR(o, total_iters=3), CosineAnnealingLR(o, 9)], [3]
    ),
    "chained": lambda o: ChainedScheduler([LinearLR(o), MultiStepLR(o, [4])]),
}


class Training:
    """One of everything."""

    def __init__(self, optimizer: str = "adamw", scheduler: str = "multistep", **to: Any) -> None:
        torch.manual_seed(4)
        self.model = Net().to(**to)
        self.optimizer = OPTIMIZERS[optimizer](self.model.parameters())
        self.scheduler = SCHEDULERS[scheduler](self.optimizer)
        self.scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=2)
        self.ema = AveragedModel(self.model, multi_avg_fn=get_ema_multi_avg_fn(0.9))
        self.average = Average(self.model)
        self.dtype = to.get("dtype", torch.float32)

    @property
    def objects(self) -> dict[str, Any]:
        names = ("model", "optimizer", "scheduler", "scaler", "ema", "average")
        return stateful.checked({name: getattr(self, name) for name in names}, ())

    def train(self, steps: int, seed: int) -> list[float]:
        torch.manual_seed(seed)
        losses = []
        for _ in range(steps):
            self.optimizer.zero_grad()
            loss = self.model(torch.randn(4, 3, 6, 6, dtype=self.dtype))
            self.scaler.scale(loss).backward()  # the first few overflow, and are left out
            self.scaler.step(self.optimizer)
            self.scaler.update()
            plateau = isinstance(self.scheduler, ReduceLROnPlateau)
            self.scheduler.step(*([loss.item()] if plateau else []))
            self.ema.update_parameters(self.model)
            self.average.update(self.model)
            losses.append(loss.item())
        return losses

    def everything(self) -> dict[str, Any]:
        return found_of(self.objects).tensors | {
            "lr": [float(group["lr"]) for group in self.optimizer.param_groups],
            "scaler": self.scaler.state_dict(),
        }


def check_exact(borrowed: bool, *kind: str, **to: Any) -> None:
    training, again = Training(*kind, **to), Training(*kind, **to)
    training.train(6, seed=1)
    found = found_of(training.objects, borrowed=borrowed)
    load(again.objects, found)
    if borrowed:  # the slot is used again
        for tensor in found.tensors.values():
            tensor.zero_()
    assert again.train(5, seed=2) == training.train(5, seed=2)
    ours, theirs = again.everything(), training.everything()
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        same = torch.equal(ours[name], value) if torch.is_tensor(value) else ours[name] == value
        assert same, name


@pytest.mark.filterwarnings("ignore:.*lr_scheduler.step.*before.*optimizer.step")
@pytest.mark.filterwarnings("ignore:The epoch parameter in")  # torch 2.6, of its own call
class TestExactly:
    @pytest.mark.parametrize("borrowed", [False, True])
    @pytest.mark.parametrize("optimizer", OPTIMIZERS)
    def test_every_optimizer(self, optimizer: str, borrowed: bool) -> None:
        check_exact(borrowed, optimizer)

    @pytest.mark.parametrize("scheduler", SCHEDULERS)
    def test_every_scheduler(self, scheduler: str) -> None:
        check_exact(True, "sgd", scheduler)

    @pytest.mark.parametrize("optimizer", ["adamw", "wide"])
    def test_bfloat16(self, optimizer: str) -> None:
        check_exact(True, optimizer, dtype=torch.bfloat16)

    @pytest.mark.parametrize("optimizer", ["adamw", "momentum"])
    def test_channels_last(self, optimizer: str) -> None:
        check_exact(True, optimizer, memory_format=torch.channels_last)


def test_state_of_channels_last_parameters_keeps_their_order_in_memory() -> None:
    training = Training(memory_format=torch.channels_last)
    training.scaler = torch.amp.GradScaler("cpu", init_scale=1.0)
    training.train(2, seed=1)
    load(training.objects, found_of(training.objects))
    weight = training.model.conv.weight
    assert not weight.is_contiguous()
    assert training.optimizer.state[weight]["exp_avg"].stride() == weight.stride()
    assert training.average.shadow["conv.weight"].stride() == weight.stride()


def test_tied_weights_stay_tied() -> None:
    training = Training()
    load(training.objects, found_of(training.objects))
    assert training.model.first.weight is training.model.second.weight


def test_what_a_module_keeps_beside_its_tensors_is_its_own() -> None:
    model = Net()
    model.calls = 7
    found = found_of({"model": model}, borrowed=True)
    load({"model": model}, found)
    found.tensors["model._extra_state.calls"].zero_()
    assert int(model.kept) == 7


def test_wrappers_do_not_change_the_names() -> None:
    model = Net()
    compiled = torch.compile(model, backend="eager")
    assert stateful.checked({"model": compiled}, ())["model"] is model
    objects = stateful.checked({"model": compiled}, ())
    load(stateful.checked({"model": copy.deepcopy(model)}, ()), found_of(objects))


def test_buffers_and_their_averages_are_rank_zeros() -> None:
    training = Training()
    training.train(1, seed=1)
    names = found_of(training.objects).tensors
    rank_zero = stateful.of_rank_zero(training.objects, names)
    assert {"model.norm.running_mean", "ema.module.norm.running_mean"} <= rank_zero
    assert "average.shadow.norm.running_var" in rank_zero
    assert not {name for name in rank_zero if "weight" in name or name.startswith("optimizer")}


def test_what_has_no_state_is_refused_by_name() -> None:
    optimizer = torch.optim.SGD(Net().parameters())
    with pytest.raises(TypeError, match=r"checkpointing\(optimizers=…\): a list has no"):
        stateful.checked({"optimizers": [optimizer]}, ())
    with pytest.raises(ValueError, match="loader: this name is taken"):
        stateful.checked({"loader": optimizer}, {"loader"})


def test_the_first_fsdp_is_refused() -> None:
    with as_rank(0, 2):
        model = nn.Sequential(FullyShardedDataParallel(nn.Linear(2, 2), device_id=CPU))
        with pytest.raises(TypeError, match="fully_shard"):
            stateful.checked({"model": model}, ())


def test_an_object_that_the_checkpoint_does_not_know_is_named() -> None:
    found = found_of({"model": nn.Linear(1, 1)})
    with pytest.raises(KeyError, match="no 'ema'; it holds model"):
        load({"ema": nn.Linear(1, 1)}, found)
