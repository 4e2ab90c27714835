"""How long a pod may take to save its state: by what its checkpoints take."""

from __future__ import annotations

from typing import Final

from headway_api.trainingjob import TrainingJobSpec, TrainingJobStatus
from headway_operator.settings import Settings

_TIMES: Final = 3
"""When a whole cluster is drained, all save at once."""
_SPARE: Final = 15
"""Seconds until the ranks have agreed on a step and finished it, and to end afterwards."""
LONGEST: Final = 3600
"""Seconds: for longer, a node is not to be kept from its maintenance unless the user says so."""


def grace_seconds(spec: TrainingJobSpec, status: TrainingJobStatus, settings: Settings) -> int:
    """Termination grace period of a pod that is made, or deleted, now.

    Args:
        spec: with its runtime merged in. What it sets, holds.
        status: tells how long the newest checkpoint took.
        settings: of the operator.
    """
    own = spec.pod.termination_grace_period_seconds if spec.pod else None
    if own is not None:
        return own
    measured = status.checkpoint.seconds if status.checkpoint else None
    needed = 0 if measured is None else min(_TIMES * measured + _SPARE, LONGEST)
    return max(settings.grace_seconds, needed)
