"""What the API takes and operators refuse so far: a converted job has to say so."""

from __future__ import annotations

from headway.convert.job import Job

FIELDS = ("scheduling.queueName",)
"""tests/unit/convert holds this to what the operator refuses."""


def ask(where: str, field: str, job: Job) -> None:
    """Asks about a field of the spec that was set, if operators of this version refuse it."""
    if field in FIELDS:
        text = f"the operator refuses {field} so far (Stalled, NotSupported): remove it for now"
        job.ask(where, text, f"spec.{field}")
