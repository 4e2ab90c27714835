"""What the API takes and this version does not do yet: it is said, never silently left out."""

from __future__ import annotations

from headway_api.trainingjob import TrainingJobSpec
from headway_operator.trainingjob.stuck import Stuck


def check_supported(spec: TrainingJobSpec) -> None:
    """Turn away a job that asks for what would not happen.

    Raises:
        Stuck: says which field to remove.
    """
    asked = {"model": spec.model is not None}
    fields = [f"spec.{field}" for field, given in asked.items() if given]
    if fields:
        raise Stuck(
            "NotSupported",
            f"This version does not support {', '.join(fields)} yet: remove it, or install one "
            "that does.",
        )
