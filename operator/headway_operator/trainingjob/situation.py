"""A job's view with its spec merged and its lead's report taken in: what policies look at."""

from __future__ import annotations

from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from headway_api.messages import ProgressReport
from headway_api.runtime import TrainingRuntimeSpec
from headway_api.trainingjob import FailurePolicy, TrainingJobSpec, TrainingJobStatus
from headway_operator.trainingjob.events import reported, transitions
from headway_operator.trainingjob.grace import grace_seconds
from headway_operator.trainingjob.group import Group
from headway_operator.trainingjob.plan import Deletion, Plan
from headway_operator.trainingjob.restarts import taken_over
from headway_operator.trainingjob.status import difference, with_progress
from headway_operator.trainingjob.view import View


@dataclass(frozen=True)
class Situation:
    """What there is, and the status as far as it is decided."""

    view: View
    now: datetime
    spec: TrainingJobSpec
    """With its runtime merged in."""
    runtime: TrainingRuntimeSpec | None
    status: TrainingJobStatus
    over_budget: bool = False
    """Whether the lead has restarted more often than it may."""
    new_attempt: bool = False
    """Whether all pods that exist belong to the past."""

    @classmethod
    def of(
        cls, view: View, now: datetime, spec: TrainingJobSpec, runtime: TrainingRuntimeSpec | None
    ) -> Situation:
        """Take in what the lead reports."""
        policy = spec.failure_policy or FailurePolicy()
        status, over, report = view.job.status, False, view.progress
        if report is not None:
            restarts, over = taken_over(status, report, status.attempt or 1, policy.max_restarts)
            if status.restarts is not None or restarts.lead is not None:
                status = status.model_copy(update={"restarts": restarts})
            if _is_current(report, status):
                status = with_progress(status, report, spec.observe)
        return cls(view, now, spec, runtime, status, over)

    @property
    def generation(self) -> int:
        """Generation of the job's spec."""
        return self.view.job.generation

    @property
    def policy(self) -> FailurePolicy:
        """How failures are met."""
        return self.spec.failure_policy or FailurePolicy()

    @property
    def grace(self) -> int:
        """Seconds that pods get to save their state."""
        return grace_seconds(self.spec, self.status, self.view.settings)

    def group(self) -> Group:
        """The pods, sorted by the status as far as it is decided."""
        restarts, elastic = self.status.restarts, self.spec.workers.elastic
        return Group.of(
            self.view.pods,
            attempt=self.status.attempt or 1,
            replicas=self.spec.workers.replicas,
            smallest=elastic.min_replicas if elastic else None,
            handled=(restarts and restarts.handled_pods) or (),
        )

    def with_status(self, status: TrainingJobStatus, *, new_attempt: bool) -> Situation:
        """The situation with a status decided further."""
        return replace(self, status=status, new_attempt=self.new_attempt or new_attempt)

    def plan(
        self,
        status: TrainingJobStatus,
        *,
        create: tuple[dict[str, Any], ...] = (),
        delete: tuple[Deletion, ...] = (),
        status_first: bool = False,
        requeue_at: datetime | None = None,
    ) -> Plan:
        """A plan that ends in a status; what need not be written is left out."""
        old = self.view.job.status
        change = difference(old, status)
        wait = None if requeue_at is None else (requeue_at - self.now).total_seconds()
        return Plan(
            create=create,
            delete=delete,
            status=None if change == "none" else status,
            urgent=change == "urgent",
            status_first=status_first,
            events=(transitions(old, status) if change == "urgent" else ())
            + reported(self.view.progress),
            requeue_after=None if wait is None else max(wait, 0.0),
        )


def _is_current(report: ProgressReport, status: TrainingJobStatus) -> bool:
    """Whether a report is not one from before that comes late."""
    return report.attempt == (status.attempt or 1) and report.generation >= (status.generation or 0)
