"""Prometheus metrics of the operator, in a registry of its own."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)


class Metrics:
    """All metrics. One instance per operator; tests make their own."""

    def __init__(self) -> None:
        self.registry = registry = CollectorRegistry()
        self.reconcile_seconds = Histogram(
            "headway_reconcile_seconds",
            "Time of one reconcile, API calls included.",
            ["outcome"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.suggestion_seconds = Histogram(
            "headway_suggestion_seconds",
            "Time to choose one configuration of a sweep, the way to the other process included.",
            ["algorithm"],
            buckets=_SECONDS,
            registry=registry,
        )
        self.queue_depth = Gauge(
            "headway_queue_depth", "Jobs that wait to be reconciled.", registry=registry
        )
        self.api_writes = Counter(
            "headway_api_writes",
            "Writes to the API server; code 0 where no answer came.",
            ["verb", "resource", "code"],
            registry=registry,
        )
        self.jobs = Gauge("headway_jobs", "TrainingJobs by phase.", ["phase"], registry=registry)
        self.restarts = Counter(
            "headway_restarts",
            "Restarts by new pods, by the culprit's reason.",
            ["reason"],
            registry=registry,
        )
        self.silence_reports = Counter(
            "headway_silence_reports",
            "Times that an agent said it hears nothing of a peer.",
            registry=registry,
        )
        self.progress_reports = Counter(
            "headway_progress_reports", "Progress reports taken.", registry=registry
        )
