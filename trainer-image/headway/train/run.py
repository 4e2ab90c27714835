"""`headway.init()`: process group, checkpoints, exact resume and progress for a training loop."""

from __future__ import annotations

import json
import logging
import os
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import timedelta
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed as dist
from torch.utils.data import Dataset

from headway.checkpoint.errors import NoValidCheckpoint, StoreError
from headway.checkpoint.location import locate
from headway.checkpoint.stores import Store, open_store
from headway.train import memory, restorer, rng, sigterm, stateful
from headway.train.courses import Courses
from headway.train.data import BatchOrder, Loader, size_of
from headway.train.found import Found
from headway.train.link import AgentLink
from headway.train.place import Place
from headway.train.saver import NoMemoryError, Saver, Snapshot
from headway.train.sharding import Wants
from headway.train.state import flatten
from headway_api import contract
from headway_api.contract import ExitCode
from headway_api.messages import Directions
from headway_api.trainingjob import Checkpoint

log = logging.getLogger("headway")
_REPORT_SECONDS = 0.2
_RESERVED = frozenset({"loader"})


class Run:
    """A training run, as one rank sees it. Made by `headway.init`.

    Attributes:
        rank: Global rank.
        world_size: Ranks of the group.
        local_rank: Rank within the pod.
        device: Where this rank computes.
        step_count: Optimizer steps done, over all restarts.
        resumed_from_step: Step of the restored checkpoint; None after a fresh start.
    """

    def __init__(self, seed: int, backend: str | None, timeout: timedelta) -> None:
        here = self._place = Place.from_env(os.environ)
        self.rank, self.world_size, self.local_rank = here.rank, here.world_size, here.local_rank
        self.seed = seed
        self.device = self._choose_device()
        self.step_count = 0
        self.resumed_from_step: int | None = None
        self._init_group(backend, timeout)
        rng.seed_everything(seed, self.rank)
        self._link = AgentLink(here.rank, here.generation)
        self._stateful: dict[str, Any] = {}
        self._loader: Loader | None = None
        self._epochs: int | None = None
        self._epoch_rng: rng.States | None = None
        self._resume: dict[str, Any] = {}
        self._metrics: dict[str, float] = {}
        self._pending: dict[str, float | torch.Tensor] = {}
        self._reported: dict[str, int] = {}
        self._courses = Courses()
        self._reported_at = 0.0
        self._store = self._open_store()
        self._saver: Saver | None = None
        self._prepared = False
        self._saved_step = self._stored_step = -1
        self._pausing = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is None:
            self.finish()

    # --- set-up --------------------------------------------------------------------------------

    def _choose_device(self) -> torch.device:
        if torch.cuda.is_available():
            torch.cuda.set_device(self.local_rank)
            return torch.device("cuda", self.local_rank)
        return torch.device("cpu")

    def _init_group(self, backend: str | None, timeout: timedelta) -> None:
        chosen = backend or ("nccl" if self.device.type == "cuda" else "gloo")
        if "MASTER_ADDR" in os.environ:
            dist.init_process_group(chosen, timeout=timeout)
        else:
            store = dist.HashStore()  # type: ignore[attr-defined]
            dist.init_process_group(chosen, store=store, rank=0, world_size=1)

    def _open_store(self) -> Store | None:
        uri = os.environ.get(contract.ENV_STORAGE_URI)
        # Without an agent nobody commits, and what is never committed need not be written.
        return _open(uri) if uri and self._link.connected else None

    def param(self, name: str, default: Any = None) -> Any:
        """A parameter of the job (`spec.parameters`), in the type of `default`.

        Raises:
            KeyError: it is not set and there is no default.
            ValueError: its text does not fit the type of `default`.
        """
        parameters = json.loads(os.environ.get(contract.ENV_PARAMETERS) or "{}")
        if name not in parameters:
            if default is None:
                raise KeyError(f"the job has no parameter {name!r}: set spec.parameters.{name}")
            return default
        text = parameters[name]
        if default is None or isinstance(default, str):
            return text
        if isinstance(default, bool):
            return text.lower() in ("1", "true", "yes")
        return type(default)(text)

    def loader(
        self,
        dataset: Dataset[Any],
        global_batch_size: int,
        *,
        shuffle: bool = True,
        drop_last: bool = False,
        **options: Any,
    ) -> Loader:
        """The training data: a DataLoader in an order that survives restarts exactly.

        Args:
            dataset: A map-style data set.
            global_batch_size: Samples of a batch over all ranks. One optimizer step may take
                several batches.
            shuffle: Whether each epoch has an order of its own.
            drop_last: Whether a last, smaller batch is left out.
            options: Further arguments of `torch.utils.data.DataLoader`.

        Raises:
            RuntimeError: `checkpointing` was called before.
        """
        if self._stateful:
            raise RuntimeError(
                "call run.loader(...) before run.checkpointing(...), which restores its position"
            )
        order = BatchOrder(
            size_of(dataset),
            global_batch_size,
            rank=self.rank,
            world_size=self.world_size,
            seed=self.seed,
            shuffle=shuffle,
            drop_last=drop_last,
        )
        self._loader = Loader(
            dataset,
            order,
            seed=self.seed,
            begins=self._continue_rng,
            ends=self._end_copy,
            goes_on=self._leave_if_pausing,
            **options,
        )
        return self._loader

    @property
    def metrics(self) -> Mapping[str, float]:
        """The latest value of each metric."""
        self._metrics |= {name: _number(value) for name, value in self._pending.items()}
        self._pending.clear()
        return self._metrics

    # --- checkpoints -----------------------------------------------------------------------------

    def checkpointing(self, **objects: Any) -> bool:
        """Name what belongs to the training state, and restore the newest checkpoint.

        Args:
            objects: Objects with `state_dict()` and `load_state_dict()`: model (in DDP,
                `torch.compile`, or neither), optimizers, scheduler, scaler, EMA, … Random
                generators and the loader's position are part of the state without being named.

        Returns:
            Whether a checkpoint was restored.

        Raises:
            TypeError: an object has no state.
        """
        self._stateful = stateful.checked(objects, _RESERVED)
        if self._store is not None:
            optimizers = [o for o in objects.values() if isinstance(o, torch.optim.Optimizer)]
            models = [m for m in self._stateful.values() if isinstance(m, torch.nn.Module)]
            self._saver = Saver(self._link, self._place, optimizers, models)
        restored = self._restore()
        if self._link.connected:
            sigterm.leave_to_agent()
        self._link.attach(self.step_count)
        if self._link.is_bound(self.step_count):
            self._pause()
        return restored

    def _restore(self) -> bool:
        if self._store is None:
            return False
        try:
            found = self._find(self._store)
        except (NoValidCheckpoint, StoreError) as error:
            log.error("%s", error)
            sys.exit(ExitCode.CONFIG)
        if found is None:
            return False
        self._load(found)
        if self.rank == 0:
            log.info("resumed from step %d (%s, from %s)", found.id.step, found.id, found.source)
            self._link.send(
                {
                    "type": "restored",
                    "step": self.step_count,
                    "source": found.source,
                    "fallbacks": list(found.fallbacks),
                    "courses": self._courses.state(),
                }
            )
        return True

    def _find(self, store: Store) -> Found | None:
        """The newest checkpoint: in memory if the lead knows that everybody has it there."""
        offer = self._link.ask({"type": "restore"})
        directions = Directions.model_validate(offer.get("directions") or {})
        self._link.bound, self._courses.observed = directions.pause_at_step, directions.observe
        wants = Wants(self._stateful)
        if offer.get("slots"):
            return memory.read(offer, self.local_rank, wants)
        return restorer.newest(store, self.rank, wants) or self._from_elsewhere(wants)

    def _from_elsewhere(self, wants: Wants) -> Found | None:
        source = Checkpoint.model_validate_json(
            os.environ.get(contract.ENV_CHECKPOINT) or "{}"
        ).resume_from
        if source is None:
            return None
        root, only = locate(source)
        found = restorer.newest(_open(root), self.rank, wants, only)
        if found is None:
            raise StoreError(f"checkpoint.resumeFrom {source}: there is no checkpoint")
        if found.rank_state is not None:  # what that run has reported is not this one's
            found = replace(found, rank_state={**found.rank_state, "courses": []})
        return found

    def _load(self, found: Found) -> None:
        for name, value in self._stateful.items():
            stateful.load(name, value, found, self.device)
        self.step_count = self.resumed_from_step = found.id.step
        if found.source == "storage":
            self._stored_step = found.id.step
        if self._loader is not None and found.objects.get("loader"):
            self._loader.order.load_state_dict(found.objects["loader"])
        self._resume = dict(found.rank_state or {})
        self._courses.restore(self._resume.pop("courses", ()))
        if self._loader is None:
            self._continue_rng()
        if self._saver is not None:
            self._saver.resumed_from = found.id

    def _continue_rng(self) -> None:
        """Go on with the random numbers after the restored step.

        Not before the loop asks for its first batch: what the script draws on its way there, it
        has drawn before that step, too.
        """
        if state := self._resume.pop("rng", None):
            rng.restore(state)

    def _snapshot(self) -> Snapshot:
        tensors: dict[str, torch.Tensor] = {}
        objects: dict[str, Any] = {"names": sorted(self._stateful)}
        for name, value in self._stateful.items():
            objects[name] = flatten(value.state_dict(), name, tensors)
        if self._loader is not None:
            objects["loader"] = self._loader.order.state_dict()
        return Snapshot(
            step=self.step_count,
            tensors=tensors,
            rank_zero=stateful.of_rank_zero(self._stateful, tensors),
            objects=objects,
            rank_state={
                "rng": rng.capture().as_json(),
                "epoch_rng": self._epoch_rng and self._epoch_rng.as_json(),
                "courses": self._courses.state(),
            },
            metrics=dict(self.metrics),
        )

    # --- the loop --------------------------------------------------------------------------------

    def epochs(self, count: int) -> Iterator[int]:
        """The epochs that are still to do, from the restored one on.

        An epoch whose last step was already done is still given: its inner loop has nothing left
        to do, and what follows it (validation, scheduler) runs as it would have.
        """
        if self._loader is None:
            raise RuntimeError("make the data with run.loader(...) before run.epochs(...)")
        order = self._loader.order
        self._epochs = count
        while order.epoch < count:
            # In the middle of an epoch, what the script does at its beginning is done once more,
            # with the same random numbers.
            if state := self._resume.pop("epoch_rng", None):
                rng.restore(state)
            self._epoch_rng = rng.capture()
            yield order.epoch
            order.next_epoch()

    def step(self, **metrics: float | torch.Tensor) -> None:
        """A step boundary: call it after `optimizer.step()`, when no gradients are kept for later.

        Takes a checkpoint when one is due, reports progress, and ends the process with exit code
        143 after a checkpoint when the pod is being taken away. After `spec.pauseAtStep` the next
        call, or the loader's next batch, ends it with exit code 82: what follows the step, such as
        a validation, is still done.

        Args:
            metrics: Values to report, such as `loss`; floats, or tensors of one element.
        """
        self._leave_if_pausing()
        self.step_count += 1
        if self._saver is not None and self._stateful and not self._prepared:
            # Only now does an optimizer have its state, and is the size of a checkpoint known.
            self._prepared = True
            snapshot = self._snapshot()
            self._saver.prepare(snapshot.tensors, snapshot.rank_zero)
        agreed = self._link.passed(self.step_count)
        now = time.monotonic()
        due = now - self._reported_at >= _REPORT_SECONDS
        # Turning a tensor on a GPU into a number waits for it: only what is reported is turned.
        self._note(metrics)
        if due or agreed:
            self._report(now)
        if agreed == "save":
            self._save()
        elif agreed == "pause":
            self._pause()
        elif agreed == "stop":
            why = self._save_and_wait()
            log.info(
                "step %d is %s; leaving", self.step_count, f"NOT saved: {why}" if why else "saved"
            )
            sys.exit(ExitCode.PREEMPTED)

    def log(self, **metrics: float | torch.Tensor) -> None:
        """Report values that belong to no single step, such as a validation accuracy."""
        self._note(metrics)
        self._report(time.monotonic())

    def _note(self, metrics: Mapping[str, float | torch.Tensor]) -> None:
        self._pending |= metrics
        self._reported |= dict.fromkeys(metrics, self.step_count)

    def _pause(self) -> None:
        """Save this step, and leave before another one is begun.

        Not at once: what follows a step belongs to it. Should that be the end of the training, it
        ends.
        """
        self._pausing = True
        self._link.send({"type": "pausing", "step": self.step_count})
        if self.step_count not in {self._saved_step, self.resumed_from_step}:
            self._save()

    def _leave_if_pausing(self) -> None:
        if not self._pausing:
            return
        if why := self._save_and_wait():
            raise RuntimeError(why)
        log.info("step %d is saved; pausing", self.step_count)
        sys.exit(ExitCode.PAUSED)

    def finish(self) -> None:
        """The end of the training: a last checkpoint, and every rank waits for every other.

        Raises:
            RuntimeError: the last checkpoint could not be saved.
        """
        self._link.send({"type": "finishing", "step": self.step_count})
        if why := self._save_and_wait():
            raise RuntimeError(why)
        self._report(time.monotonic())
        dist.barrier()
        dist.destroy_process_group()
        self._link.close()

    def _save(self) -> None:
        if self._saver is None or not self._stateful:
            return
        try:
            self._saver.save(self._snapshot())
        except NoMemoryError as error:
            log.error("%s", error)
            sys.exit(ExitCode.CONFIG)
        self._saved_step = self.step_count

    def _save_and_wait(self) -> str | None:
        """Get this step into storage; returns why that can't be."""
        if self._saver is None or not self._stateful or self.step_count == self._stored_step:
            return None
        if self.step_count not in {self._saved_step, self.resumed_from_step}:
            self._save()
        return self._saver.refusal(self.step_count)

    def _total(self) -> int | None:
        """Steps of the whole run: what is left of the data, at so many batches a step as so far."""
        loader = self._loader
        if loader is None or self._epochs is None or not loader.taken:
            return None
        left = (self._epochs - loader.order.epoch) * loader.order.batches - loader.order.done
        steps = self.step_count - (self.resumed_from_step or 0)
        return self.step_count + round(left * steps / loader.taken)

    def _end_copy(self) -> None:
        """Validation may change the weights without telling torch, as some averages do."""
        if self._saver is not None:
            self._saver.wait()

    def _report(self, now: float) -> None:
        if self.rank:
            return
        self._reported_at = now
        self._courses.add(self._reported, self.metrics)
        self._link.send(
            {
                "type": "step",
                "step": self.step_count,
                "total": self._total(),
                "epoch": self._loader.order.epoch if self._loader else None,
                "metrics": self.metrics,
                "reported": self._reported,
            }
        )
        self._reported = {}


def _number(value: float | torch.Tensor) -> float:
    return float(value.detach() if isinstance(value, torch.Tensor) else value)


def _open(uri: str) -> Store:
    return open_store(
        uri,
        endpoint=os.environ.get(contract.ENV_STORAGE_ENDPOINT) or None,
        region=os.environ.get(contract.ENV_STORAGE_REGION) or None,
    )


def init(*, seed: int = 0, backend: str | None = None, timeout_seconds: float = 60) -> Run:
    """Join the process group and return this rank's `Run`.

    Under Headway all settings come from the pod's environment. A plain `python train.py` works
    too: one rank, and no checkpoints.

    Args:
        seed: Seed of Python's, NumPy's and torch's generators (plus the rank) and of the order
            of the data.
        backend: `gloo` or `nccl`; by default what fits the device.
        timeout_seconds: Time after which a collective without its peers fails.
    """
    logging.basicConfig(level=logging.INFO, format="headway %(message)s")
    return Run(seed, backend, timedelta(seconds=timeout_seconds))
