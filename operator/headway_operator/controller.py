"""The loop: events in, one job at a time through `reconcile`, plans out to the API server."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from headway_api.messages import ProgressReport
from headway_api.runtime import TrainingRuntimeSpec
from headway_operator.apply import Applier, Blocked
from headway_operator.budget import ProgressBudget
from headway_operator.cache import Cache, JobKey, job_of
from headway_operator.cluster.client import (
    POD,
    Conflict,
    KubeClient,
    NotFound,
    Object,
    Resource,
)
from headway_operator.loop import CONFLICTS, SOONEST_SECONDS, Loop, keeps_changing
from headway_operator.metrics import Metrics
from headway_operator.progress.summary import with_known_course
from headway_operator.settings import Settings
from headway_operator.silence import Silences
from headway_operator.trainingjob.plan import Plan
from headway_operator.trainingjob.reconcile import reconcile
from headway_operator.trainingjob.view import (
    Job,
    Obstacle,
    View,
    controller_uid,
    final_report,
    parse_job,
)
from headway_operator.trainingjob.workload import Workload

logger = logging.getLogger(__name__)

UNSEEN_SECONDS = 15.0
"""After which a pod that we have made should have been told of by the watch."""


@dataclass(frozen=True)
class _Refusal:
    """A child that the API server refused: not tried again before the job or time changes."""

    obstacle: Obstacle
    generation: int
    until: float


def _utc_now() -> datetime:
    return datetime.now(UTC)


class Controller:
    """Reconciles all TrainingJobs of a cache.

    `observe` may be called at any time; `run` begins to act, and is to be called only once the
    cache has seen a complete list of each kind: a pod not seen yet looks like a lost one.

    Args:
        client: the cluster to write to.
        cache: what is known of it; only `observe` and the controller write there.
        settings: of the operator.
        metrics: where to count; a fresh set by default.
        clock: the time, in UTC.
        rng: spreads retries and resyncs.
    """

    def __init__(
        self,
        client: KubeClient,
        cache: Cache,
        settings: Settings,
        *,
        metrics: Metrics | None = None,
        clock: Callable[[], datetime] = _utc_now,
        rng: random.Random | None = None,
    ) -> None:
        self._cache = cache
        self._settings = settings
        self._metrics = metrics or Metrics()
        self._clock = clock
        self._applier = Applier(client, cache, self._metrics, clock)
        self._loop = Loop(
            self._reconcile,
            settings,
            self._metrics,
            rng or random.Random(),  # noqa: S311 - jitter
            self._metrics.queue_depth.set,
        )
        self._budget = ProgressBudget(
            settings.progress_seconds, settings.progress_writes_per_second
        )
        self._refusals: dict[JobKey, _Refusal] = {}
        self._progress: dict[JobKey, tuple[str, ProgressReport]] = {}
        self._silences = Silences()
        self._phases: dict[JobKey, str] = {}

    # --- what happens outside ------------------------------------------------------------------

    def observe(self, resource: Resource, kind: str, item: Object) -> None:
        """Take in one change that a watch tells: ADDED, MODIFIED or DELETED, and the object."""
        change = self._cache.remove if kind == "DELETED" else self._cache.put
        for key in change(resource, item):
            self.wake(key)
        if resource == POD:
            self._hear_last_words(item)

    def wake(self, key: JobKey) -> None:
        """Have a job looked at: ahead of new jobs if it has pods already."""
        self._loop.wake(key, first=self._cache.has_pods(key))

    def record_progress(self, key: JobKey, report: ProgressReport) -> bool:
        """Take a report of a job's lead agent; false if there is no such job.

        Who calls this has checked that the sender is the job's lead pod of now.
        """
        item = self._cache.job(key)
        if item is None:
            return False
        self._metrics.progress_reports.inc()
        self._take(key, item["metadata"]["uid"], report)
        return True

    def _hear_last_words(self, item: Object) -> None:
        """Take the report that a lead has left in its termination message.

        At once: by the time that its job is looked at, the pod may be gone, and with it the only
        word of the checkpoint that it saved last.
        """
        report = final_report(item)
        if report is None:
            return
        key, owner = job_of(item), controller_uid(item)
        job = self._cache.job(key)
        if job is not None and job["metadata"]["uid"] != owner:
            return
        _, known = self._progress.get(key, (owner, None))
        if known is not None and known.session == report.session:
            report = report.model_copy(update={"events": known.events})
        self._take(key, owner, report)

    def _take(self, key: JobKey, uid: str, report: ProgressReport) -> None:
        of, known = self._progress.get(key, (uid, None))
        if of == uid and known is not None and _is_overtaken(report, known):
            return
        if of == uid and known is not None:
            report = with_known_course(report, known)
        self._progress[key] = (uid, report)
        if of != uid or known is None or _tells_news(known, report):
            self.wake(key)
        else:
            left = self._budget.left(key, asyncio.get_running_loop().time())
            self._loop.wake_later(key, left)

    def heard(self, key: JobKey, uid: str, silent: Collection[str] | None = None) -> None:
        """Take note that a pod of a job speaks.

        Who calls this has checked that the speaker is a pod of the job, and may say so of these.

        Args:
            key: the job.
            uid: the pod that speaks.
            silent: UIDs of all pods of the job that it says it hears nothing of; None where it
                said nothing about that.
        """
        now = asyncio.get_running_loop().time()
        if silent is None:
            self._silences.spoke(key, uid, now)
            return
        self._silences.said(key, uid, silent, now)
        if silent:
            self._metrics.silence_reports.inc()
            if self._silent(key):
                self.wake(key)

    def _silent(self, key: JobKey) -> frozenset[str]:
        now = asyncio.get_running_loop().time()
        return self._silences.lasting(key, self._settings.silence_seconds, now)

    def latest_progress(self, key: JobKey) -> ProgressReport | None:
        """The latest report of a job, if there was one since the operator started."""
        item, known = self._cache.job(key), self._progress.get(key)
        if item is None or known is None or known[0] != item["metadata"]["uid"]:
            return None
        return known[1]

    def stalled_seconds(self) -> float:
        """How long there has been work and none of it was finished: for the liveness probe."""
        return self._loop.stalled_seconds()

    @property
    def metrics(self) -> Metrics:
        """Where this controller counts."""
        return self._metrics

    @property
    def idle(self) -> bool:
        """Whether nothing waits or is being worked on; later wishes aside."""
        return self._loop.idle

    # --- the loop --------------------------------------------------------------------------------

    async def run(self) -> None:
        """Work until cancelled."""
        self._silences = Silences(asyncio.get_running_loop().time())
        await self._loop.run(self._settings.workers)

    async def _reconcile(self, key: JobKey) -> float | None:
        """Bring one job nearer to what it should be; seconds until the next look."""
        await self._applier.verify(key, older_than=UNSEEN_SECONDS)
        for _ in range(CONFLICTS):
            view = self._view(key)
            if view is None:
                self._forget(key)
                return None
            try:
                return await self._step(key, view)
            except Conflict:
                await self._applier.refresh(key, view.job.uid)
            except NotFound:
                if self._cache.job(key) is not None:
                    raise
        raise keeps_changing()

    async def _step(self, key: JobKey, view: View) -> float | None:
        plan = reconcile(view, self._clock())
        try:
            return await self._carry_out(key, view, plan)
        except Blocked as blocked:
            if blocked.obstacle.kind == "Refused":
                self._refuse(key, view, blocked.obstacle)
            # Some of the plan may be done: look afresh, and say in the status what is in the way.
            now = self._view(key)
            if now is None:
                return None
            now = replace(now, obstacle=blocked.obstacle)
            wait = await self._carry_out(key, now, reconcile(now, self._clock()))
            if blocked.obstacle.kind == "Forbidden":
                raise
            return wait

    async def _carry_out(self, key: JobKey, view: View, plan: Plan) -> float | None:
        """Apply a plan and post its events; seconds until the next look."""
        time = asyncio.get_running_loop().time()
        waits = [plan.requeue_after, self._loop.resync()]
        write = plan.status is not None
        if write and not plan.urgent:
            patience = self._budget.take(key, time)
            write = patience == 0
            waits.append(patience or None)
        elif write:
            self._budget.wrote(key, time)
        await self._applier.apply(view.job, plan, write_status=write)
        if write and plan.status is not None:
            self._count(key, plan)
        else:  # known from before this operator's time
            self._set_phase(key, view.job.status.phase)
        await self._applier.post(view.job, plan.events)
        if self._cache.unseen(key):
            waits.append(2 * UNSEEN_SECONDS)
        return max(SOONEST_SECONDS, min(wait for wait in waits if wait is not None))

    # --- bookkeeping -----------------------------------------------------------------------------

    def _view(self, key: JobKey) -> View | None:
        item = self._cache.job(key)
        if item is None:
            return None
        job = parse_job(item)
        pods = self._cache.pods(key)
        own = tuple(pod for pod in pods if pod.owner == job.uid)
        return View(
            job=job,
            pods=own,
            namesakes=tuple(pod for pod in pods if pod.owner != job.uid),
            runtime=self._runtime(job),
            progress=self.latest_progress(key),
            lost_nodes=self._cache.lost_nodes(pods),
            silent=self._silent(key),
            workload=self._workload(key, job),
            flavors=self._cache.flavors,
            obstacle=self._obstacle(key, job.generation),
            settings=self._settings,
        )

    def _workload(self, key: JobKey, job: Job) -> Workload | None:
        found = self._cache.workload(key)
        return found if found is not None and found.owner == job.uid else None

    def _runtime(self, job: Job) -> TrainingRuntimeSpec | None:
        reference = job.spec.runtime_ref
        if reference is None or job.status.runtime is not None:
            return None
        found = self._cache.runtime(reference.kind, job.namespace, reference.name)
        return None if found is None else TrainingRuntimeSpec.model_validate(found["spec"])

    def _obstacle(self, key: JobKey, generation: int) -> Obstacle | None:
        refusal = self._refusals.get(key)
        if refusal is None:
            return None
        if refusal.generation == generation and asyncio.get_running_loop().time() < refusal.until:
            return refusal.obstacle
        del self._refusals[key]
        return None

    def _refuse(self, key: JobKey, view: View, obstacle: Obstacle) -> None:
        until = asyncio.get_running_loop().time() + self._settings.resync_seconds * 0.9
        self._refusals[key] = _Refusal(obstacle, view.job.generation, until)

    def _count(self, key: JobKey, plan: Plan) -> None:
        assert plan.status is not None
        self._set_phase(key, plan.status.phase)
        for event in plan.events:
            if event.reason == "Restarting" and plan.status.restarts and plan.status.restarts.last:
                self._metrics.restarts.labels(plan.status.restarts.last.reason).inc()

    def _set_phase(self, key: JobKey, phase: str | None) -> None:
        before = self._phases.pop(key, None)
        if before is not None:
            self._metrics.jobs.labels(before).dec()
        if phase is not None:
            self._phases[key] = phase
            self._metrics.jobs.labels(phase).inc()

    def _forget(self, key: JobKey) -> None:
        self._set_phase(key, None)
        self._budget.forget(key)
        self._loop.forget(key)
        self._refusals.pop(key, None)
        self._progress.pop(key, None)
        self._silences.forget(key)


def _is_overtaken(report: ProgressReport, known: ProgressReport) -> bool:
    """Whether a report is older than the one that is known: they may come by several ways."""
    if report.session == known.session:
        return report.number < known.number
    return report.attempt < known.attempt


def _tells_news(known: ProgressReport, report: ProgressReport) -> bool:
    """Whether a report tells more than progress."""
    return (
        (known.session, known.state, known.generation, known.restarts_total)
        != (report.session, report.state, report.generation, report.restarts_total)
        or known.events != report.events
        or (known.checkpoint is None) != (report.checkpoint is None)
    )
