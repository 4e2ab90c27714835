"""The loop of sweeps: events in, one sweep at a time through `reconcile`, plans out."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final

from headway_api import contract
from headway_operator.apply import Blocked
from headway_operator.budget import ProgressBudget
from headway_operator.cluster.client import (
    Conflict,
    KubeClient,
    NotFound,
    Object,
    Resource,
)
from headway_operator.loop import CONFLICTS, SOONEST_SECONDS, Key, Loop, keeps_changing
from headway_operator.metrics import Metrics
from headway_operator.resources import SWEEP, SWEEP_RECORD, TRAINING_JOB
from headway_operator.settings import Settings
from headway_operator.sweep import warmstart
from headway_operator.sweep.apply import Applier, subject_of
from headway_operator.sweep.chooser import Choose, ChoosingFailed
from headway_operator.sweep.index import Index
from headway_operator.sweep.making import training_job
from headway_operator.sweep.plan import Chosen, New, Plan
from headway_operator.sweep.population import checkpoint_of
from headway_operator.sweep.reconcile import reconcile
from headway_operator.sweep.situation import Situation
from headway_operator.sweep.trial import Trial
from headway_operator.sweep.view import Sweep, View, parse_sweep, unmade
from headway_operator.trainingjob.plan import Event
from headway_operator.trainingjob.stuck import Stuck
from headway_operator.trainingjob.view import Obstacle
from headway_operator.writes import Writer

logger = logging.getLogger(__name__)

KINDS: Final = (SWEEP, TRAINING_JOB, SWEEP_RECORD)
"""What sweeps are decided from."""
_WORKERS: Final = 4
"""Sweeps that are reconciled at the same time."""


def _utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class _Refusal:
    """A trial that was refused: not tried again before the sweep or time changes."""

    obstacle: Obstacle
    generation: int
    until: float


class SweepController:
    """Reconciles all Sweeps.

    `observe` may be called at any time; `run` begins to act, and is to be called only once a
    complete list of each kind has been seen: a trial not seen yet looks like one never made.

    Args:
        client: the cluster to write to.
        settings: of the operator.
        metrics: where to count.
        choose: how configurations are chosen.
        clock: the time, in UTC.
        rng: spreads retries and resyncs.
    """

    def __init__(
        self,
        client: KubeClient,
        settings: Settings,
        metrics: Metrics,
        choose: Choose,
        *,
        clock: Callable[[], datetime] = _utc_now,
        rng: random.Random | None = None,
    ) -> None:
        self.index = Index()
        self._settings = settings
        self._metrics = metrics
        self._choose = choose
        self._clock = clock
        self._writer = Writer(client, metrics, clock)
        self._applier = Applier(client, self.index, self._writer)
        self._loop = Loop(
            self._reconcile,
            settings,
            metrics,
            rng or random.Random(),  # noqa: S311 - jitter
        )
        self._budget = ProgressBudget(
            settings.progress_seconds, settings.progress_writes_per_second
        )
        self._refusals: dict[Key, _Refusal] = {}
        self._exhausted: dict[Key, str] = {}

    def observe(self, resource: Resource, kind: str, item: Object) -> None:
        """Take in one change that a watch tells: ADDED, MODIFIED or DELETED, and the object."""
        if resource not in KINDS:
            return
        change = self.index.remove if kind == "DELETED" else self.index.put
        key = change(resource, item)
        if key is not None:
            self._loop.wake(key)

    def stalled_seconds(self) -> float:
        """How long there has been work and none of it was finished."""
        return self._loop.stalled_seconds()

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is being worked on; later wishes aside."""
        return self._loop.idle

    async def run(self) -> None:
        """Work until cancelled."""
        await self._loop.run(_WORKERS)

    # --- one sweep --------------------------------------------------------------------------------

    async def _reconcile(self, key: Key) -> float | None:
        for _ in range(CONFLICTS):
            view = self._view(key)
            if view is None:
                self._forget(key)
                return None
            try:
                return await self._step(key, view)
            except Conflict:
                await self._applier.refresh(view.sweep)
            except NotFound:
                if self.index.sweep(key) is not None:
                    raise
        raise keeps_changing()

    async def _step(self, key: Key, view: View) -> float | None:
        plan = reconcile(view, self._clock())
        if plan.delete_sweep:
            await self._applier.delete_sweep(view.sweep)
            return None
        blocked: Blocked | None = None
        try:
            await self._applier.trials(view.sweep, plan)
            if plan.new:
                await self._try_new(key, view, plan)
        except Blocked as error:
            blocked = error
            if error.obstacle.kind == "Refused":
                self._refuse(key, view, error.obstacle)
        if plan.new or blocked is not None:
            # Say in the status what there is now, and what is in the way.
            now = self._view(key)
            if now is None:
                return None
            if blocked is not None:
                now = replace(now, obstacle=blocked.obstacle)
            plan = replace(reconcile(now, self._clock()), new=(), create=(), patch=())
            view = now
        wait = await self._tell(key, view, plan)
        if blocked is not None and blocked.obstacle.kind == "Forbidden":
            raise blocked
        return wait

    async def _try_new(self, key: Key, view: View, plan: Plan) -> None:
        """Choose configurations, and make their TrainingJobs one after the other.

        Raises:
            Blocked: one can't be made; those after it are left out.
        """
        sweep, here = view.sweep, Situation(view, self._clock())
        warm = await self._warm(sweep)
        began = asyncio.get_running_loop().time()
        try:
            found, exhausted = await self._choose(sweep, here.trials, warm, plan.new)
        except Stuck as stuck:
            raise Blocked(Obstacle("Refused", stuck.message)) from stuck
        except ChoosingFailed as failed:
            logger.warning("%s/%s: %s", *key, failed, exc_info=True)
            raise Blocked(Obstacle("Forbidden", f"{failed}.")) from failed
        took = asyncio.get_running_loop().time() - began
        for _ in found:
            seconds = self._metrics.suggestion_seconds.labels(sweep.spec.algorithm.name)
            seconds.observe(took / len(found))
        if exhausted:
            self._exhausted[key] = sweep.uid
        for new, choice in zip(plan.new, found, strict=False):
            await self._make(here, new, choice)

    async def _warm(self, sweep: Sweep) -> Sequence[Trial]:
        """What other sweeps have found out; read and kept before the first trial.

        Raises:
            Blocked: one of them does not exist.
        """
        key = (sweep.namespace, sweep.name)
        known = self.index.warm(key, sweep.uid)
        if known is not None or not sweep.spec.warm_start:
            return known or ()
        others = []
        for reference in sweep.spec.warm_start:
            other = self._view((sweep.namespace, reference.name))
            if other is None:
                said = f"Sweep {reference.name} of warmStart does not exist: create it, or leave "
                raise Blocked(Obstacle("Forbidden", f"{said}it out in a new sweep."))
            others.append(other)
        trials = warmstart.found(sweep, others)
        await self._applier.keep(sweep, warmstart.record(sweep, trials))
        return self.index.warm(key, sweep.uid) or ()

    async def _make(self, here: Situation, new: New, choice: Chosen) -> None:
        """Make the first run of a configuration.

        Parameters that the template can't take make a failed trial. The first trial of all makes
        the sweep stall instead: then it is the template that is wrong.
        """
        sweep, params, attrs = here.view.sweep, choice.params, choice.attrs
        try:
            origin = checkpoint_of(here, attrs)
            body = training_job(sweep, new.index, 0, params, attrs, new.until, origin)
            await self._applier.create(sweep, body)
        except (Stuck, Blocked) as error:
            passing = isinstance(error, Blocked) and error.obstacle.kind == "Forbidden"
            if passing:
                raise
            if new.index == 0:
                raise Blocked(Obstacle("Refused", str(error))) from error
            name = contract.trial_name(sweep.name, new.index)
            run = unmade(name, new.index, params, attrs)
            await self._applier.record(sweep, [run])
            event = Event("Warning", "TrialRefused", f"Trial {new.index}: {error}", name)
            await self._writer.post(subject_of(sweep), (event,))

    async def _tell(self, key: Key, view: View, plan: Plan) -> float:
        """Write the status when it is time to, and post events; seconds until the next look."""
        time = asyncio.get_running_loop().time()
        waits = [plan.requeue_after, self._loop.resync()]
        write = plan.status is not None
        if write and not plan.urgent:
            patience = self._budget.take(key, time)
            write = patience == 0
            waits.append(patience or None)
        elif write:
            self._budget.wrote(key, time)
        if write:
            await self._applier.status(view.sweep, plan)
        await self._writer.post(subject_of(view.sweep), plan.events)
        if plan.new or plan.record or plan.delete:
            waits.append(SOONEST_SECONDS)
        return max(SOONEST_SECONDS, min(wait for wait in waits if wait is not None))

    # --- what is known ----------------------------------------------------------------------------

    def _view(self, key: Key) -> View | None:
        item = self.index.sweep(key)
        if item is None:
            return None
        sweep = parse_sweep(item)
        return View(
            sweep=sweep,
            jobs=tuple(job for job in self.index.jobs(key) if job.owner == sweep.uid),
            records=tuple(run for run in self.index.records(key) if run.owner == sweep.uid),
            exhausted=self._exhausted.get(key) == sweep.uid,
            obstacle=self._obstacle(key, sweep.generation),
            settings=self._settings,
        )

    def _obstacle(self, key: Key, generation: int) -> Obstacle | None:
        refusal = self._refusals.get(key)
        if refusal is None:
            return None
        if refusal.generation == generation and asyncio.get_running_loop().time() < refusal.until:
            return refusal.obstacle
        del self._refusals[key]
        return None

    def _refuse(self, key: Key, view: View, obstacle: Obstacle) -> None:
        until = asyncio.get_running_loop().time() + self._settings.resync_seconds * 0.9
        self._refusals[key] = _Refusal(obstacle, view.sweep.generation, until)

    def _forget(self, key: Key) -> None:
        self._loop.forget(key)
        self._budget.forget(key)
        self._refusals.pop(key, None)
        self._exhausted.pop(key, None)
