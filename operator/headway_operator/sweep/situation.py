"""A sweep's view with its trials made out: what policies look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property

from headway_api.sweep import SweepSpec, TrialCounts
from headway_operator.sweep.trial import State, Trial
from headway_operator.sweep.trials import Runs, runs_of, state_of
from headway_operator.sweep.view import RunJob, View
from headway_operator.trainingjob.times import parsed, seconds_between


@dataclass(frozen=True)
class Situation:
    """What there is of a sweep at one moment."""

    view: View
    now: datetime

    @property
    def spec(self) -> SweepSpec:
        """The sweep's."""
        return self.view.sweep.spec

    @cached_property
    def runs(self) -> Sequence[Runs]:
        """All configurations, by index."""
        return runs_of(self.view)

    @cached_property
    def trials(self) -> Sequence[Trial]:
        """What algorithms and rules see, by index."""
        return [each.trial for each in self.runs]

    @cached_property
    def active(self) -> Sequence[RunJob]:
        """TrainingJobs that take up a slot: they run, are queued, or are about to."""
        jobs = (job for each in self.runs for job in each.jobs)
        return [job for job in jobs if state_of(self.spec, job) == "Running"]

    @cached_property
    def created(self) -> int:
        """How many configurations there have been, those included that somebody has deleted."""
        before = self.view.sweep.status.counts
        highest = self.trials[-1].index + 1 if self.trials else 0
        return max(highest, before.created if before else 0)

    @cached_property
    def most(self) -> int:
        """How many configurations there will be."""
        return self.created if self.view.exhausted else max(self.spec.max_trials, self.created)

    @cached_property
    def counts(self) -> TrialCounts:
        """Trials by state."""
        by_state: dict[State, int] = {}
        for trial in self.trials:
            by_state[trial.state] = by_state.get(trial.state, 0) + 1
        return TrialCounts(
            created=self.created,
            running=by_state.get("Running", 0),
            paused=by_state.get("Paused", 0),
            complete=by_state.get("Complete", 0),
            stopped=by_state.get("Stopped", 0),
            failed=by_state.get("Failed", 0),
        )

    @property
    def ended(self) -> int:
        """Configurations that will never go on, those included that somebody has deleted."""
        return self.created - self.counts.running - self.counts.paused

    @property
    def active_seconds(self) -> float:
        """For how long the sweep has been active."""
        status = self.view.sweep.status
        since = seconds_between(parsed(status.start_time), self.now) or 0.0
        return (status.active_seconds or 0) + since

    @property
    def budget_ends(self) -> datetime | None:
        """When the time budget is used up, if it is running."""
        limit = self.spec.time_budget_seconds
        if limit is None or self.view.sweep.status.start_time is None:
            return None
        return self.now + timedelta(seconds=limit - self.active_seconds)
