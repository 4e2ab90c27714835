"""What the lead tells the operator: one report that is always complete, sent when it changes."""

from __future__ import annotations

import asyncio
import logging
import random
import time
import uuid
from collections import deque
from collections.abc import Callable, Collection, Mapping

from headway.agent.committer import Committed
from headway.agent.endpoint import Endpoint
from headway.agent.faults import utc
from headway.agent.wire import Message
from headway.checkpoint.errors import StoreError
from headway.tracking.history import HistoryWriter, Point
from headway_api import observations
from headway_api.messages import (
    CheckpointReport,
    Directions,
    EventReport,
    ProgressReport,
    RestartReport,
    SilentPeer,
)
from headway_api.observations import Observation

log = logging.getLogger(__name__)
_SOONEST_SECONDS = 1.0
_LATEST_SECONDS = 10.0
_EVENTS_KEPT = 8
_SILENT = 128
"""Silent peers told at once: a report has to fit the endpoint's 64 KiB."""
_FALLBACK = 400
"""Characters, so that the final report fits a termination log."""
_METRICS = 64
"""Entries that the status has room for (`TrainingJobStatus.progress.metrics`)."""
_RATE_WEIGHT = 0.2
"""Weight of the newest interval in the smoothed step rate (exponential moving average)."""


def reported(metrics: Mapping[str, float]) -> dict[str, str]:
    """Metrics as the status holds them: the first `_METRICS` by name. The history has all."""
    return {name: decimal(metrics[name]) for name in sorted(metrics)[:_METRICS]}


def decimal(value: float) -> str:
    """A metric as a decimal string with 6 significant digits."""
    return f"{value:.6g}"


class StepRate:
    """Smoothed steps per second, for the estimated time left."""

    def __init__(self) -> None:
        self._last: tuple[float, int] | None = None
        self._rate: float | None = None

    def at(self, step: int, now: float) -> None:
        """Note that `step` was finished at `now` (seconds)."""
        if self._last is None or step < self._last[1]:
            self._last = (now, step)
            return
        seconds, steps = now - self._last[0], step - self._last[1]
        if seconds < 1.0 or not steps:
            return
        rate = steps / seconds
        self._rate = rate if self._rate is None else self._rate + _RATE_WEIGHT * (rate - self._rate)
        self._last = (now, step)

    def seconds_for(self, steps: int) -> int | None:
        """Seconds that so many steps will take; None as long as that is unknown."""
        return None if not self._rate else round(steps / self._rate)


class Reporter:
    """Keeps the latest report and sends it: soon after a change of state, else every 10 s."""

    def __init__(self, attempt: int) -> None:
        self.history: HistoryWriter | None = None
        self.report = ProgressReport(session=uuid.uuid4().hex, attempt=attempt, generation=0)
        self._rate = StepRate()
        self._events: deque[EventReport] = deque(maxlen=_EVENTS_KEPT)
        self._posted = 0
        self._urgent = asyncio.Event()
        self._observed: Collection[str] = ()

    def _update(self, **changes: object) -> None:
        self.report = self.report.model_copy(update=changes)

    def group(
        self, state: str, message: str, total: int, counted: int, last: RestartReport | None
    ) -> None:
        """Note the state of the group."""
        if (state, total) != (self.report.state, self.report.restarts_total):
            self._urgent.set()
        self._update(
            state=state,
            message=message,
            restarts_total=total,
            restarts_counted=counted,
            last_restart=last,
        )

    def began(self, generation: int) -> None:
        """A generation starts."""
        self._rate = StepRate()
        self._update(generation=generation)
        self._urgent.set()

    def observe(self, metrics: Collection[str]) -> None:
        """Report the course of these metrics."""
        self._observed = metrics

    def _observations(self, message: Message) -> list[Observation]:
        new = [
            observations.report(metric, int(step), message["metrics"][metric])
            for metric, step in message.get("reported", {}).items()
            if metric in self._observed
        ]
        return observations.all_merged(self.report.observations, new)

    def paused(self, step: int) -> None:
        """All ranks have saved this step, be it that an earlier lead's ranks trained it."""
        self._update(step=step)

    def stepped(self, message: Message) -> None:
        """Rank 0 has finished a step."""
        step, total = int(message["step"]), message.get("total")
        self._rate.at(step, time.monotonic())
        if self.history is not None:
            self.history.add(
                Point(
                    time=time.time(),
                    generation=self.report.generation,
                    step=step,
                    epoch=message.get("epoch"),
                    metrics=message.get("metrics", {}),
                )
            )
        self._update(
            step=step,
            total_steps=total,
            epoch=message.get("epoch"),
            eta_seconds=self._rate.seconds_for(total - step) if total else None,
            metrics=reported(message.get("metrics", {})),
            updated_at=utc(time.time()),
            observations=self._observations(message),
        )

    def lost(self, index: int, uid: str) -> None:
        """A peer has been silent for too long: the operator is told until it is `found`."""
        known = [peer for peer in self.report.silent if peer.index != index]
        peer = SilentPeer(index=index, uid=uid, since=utc(time.time()))
        self._update(silent=[*known, peer][-_SILENT:])
        self._urgent.set()

    def found(self, index: int) -> None:
        """The pod of this index is heard of (again)."""
        known = [peer for peer in self.report.silent if peer.index != index]
        if known != self.report.silent:
            self._update(silent=known)
            self._urgent.set()

    def skipped(self) -> None:
        """A save was due and found no free slot."""
        self._update(saves_skipped=self.report.saves_skipped + 1)

    def restored(self, message: Message) -> None:
        """Rank 0 has restored a checkpoint."""
        fallbacks = [str(skipped) for skipped in message.get("fallbacks", [])]
        courses = map(Observation.model_validate, message.get("courses", []))
        told = [course for course in courses if course.metric in self._observed]
        self._update(
            resumed_from_step=int(message["step"]),
            restored_from=str(message.get("source", "")).capitalize() or None,
            fallback="; ".join(fallbacks)[:_FALLBACK] or None,
            observations=observations.all_merged(self.report.observations, told),
        )
        for skipped in fallbacks:
            self.event("CheckpointFallback", f"skipped a bad checkpoint: {skipped}")
        self._urgent.set()

    def committed(self, committed: Committed, seconds: float | None = None) -> None:
        """A checkpoint exists; `seconds` after its step."""
        best = committed.best
        told = {}
        if best is not None:
            told = {
                "best_step": best.step,
                "best_uri": best.uri,
                "best_metric": best.metric,
                "best_value": decimal(best.value),
            }
        self._update(
            checkpoint=CheckpointReport(
                step=committed.step,
                uri=committed.uri,
                time=committed.time,
                seconds=seconds,
                metrics=reported(committed.metrics),
                **told,
            )
        )

    def event(self, reason: str, message: str, severity: str = "Warning") -> None:
        """Note something for the log and for `kubectl describe`."""
        log.log(logging.WARNING if severity == "Warning" else logging.INFO, "%s", message)
        self._posted += 1
        name = f"{self.report.session[:8]}-{self._posted}"
        self._events.append(EventReport(id=name, type=severity, reason=reason, message=message))
        self._update(events=list(self._events))
        self._urgent.set()

    def next(self) -> ProgressReport:
        """The report as it is to be sent now, with a number of its own."""
        self._update(number=self.report.number + 1)
        return self.report

    async def run(self, endpoint: Endpoint, direct: Callable[[Directions], None]) -> None:
        """Send reports until cancelled.

        Args:
            endpoint: Takes them.
            direct: Told what the job wants now, by each answer.
        """
        sent: ProgressReport | None = None
        while True:
            self._urgent.clear()
            if self.report != sent or self.report.silent:
                report = self.next()
                answer = await endpoint.report(report)
                sent = report if answer else None
                if answer is not None:
                    direct(answer.directions)
            await asyncio.sleep(_SOONEST_SECONDS)
            if self.report.silent:  # its word counts for as long as it is repeated
                continue
            # Jitter: thousands of jobs must not report in the same moment.
            wait = (_LATEST_SECONDS - _SOONEST_SECONDS) * random.uniform(0.8, 1.0)  # noqa: S311
            try:
                await asyncio.wait_for(self._urgent.wait(), wait if sent else _SOONEST_SECONDS)
            except TimeoutError:
                continue

    async def keep_history(self) -> None:
        """Send the history to storage until cancelled."""
        while True:
            await asyncio.sleep(_LATEST_SECONDS)
            await self.flush_history()

    async def flush_history(self) -> None:
        """Send what has not been sent yet. History is worth a warning, never a failure."""
        if self.history is None:
            return
        try:
            await asyncio.to_thread(self.history.flush)
        except StoreError as error:
            log.warning("the history could not be written: %s", error)
