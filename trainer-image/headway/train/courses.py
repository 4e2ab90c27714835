"""Courses of observed metrics as part of the training state.

The lead's agent has them too, and tells the operator every few seconds. What it did not live to
tell would be missing after a restart from a later checkpoint: nothing of it is trained again.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from headway_api.observations import Observation, merged, report


class Courses:
    """What rank 0 has reported of observed metrics, up to the present step.

    Attributes:
        observed: Names of the metrics that matter.
    """

    def __init__(self) -> None:
        self.observed: Collection[str] = ()
        self._known: dict[str, Observation] = {}

    def add(self, reported: Mapping[str, int], values: Mapping[str, float]) -> None:
        """Take reports.

        Args:
            reported: The step of each metric that has been reported.
            values: Values of these metrics, and of others.
        """
        for metric, step in reported.items():
            if metric in self.observed:
                new = report(metric, step, values[metric])
                self._known[metric] = merged(self._known.get(metric), new)

    def state(self) -> list[dict[str, Any]]:
        """What a checkpoint keeps."""
        return [each.wire() for each in self._known.values()]

    def restore(self, state: Iterable[Mapping[str, Any]]) -> None:
        """Go on from a checkpoint."""
        for each in map(Observation.model_validate, state):
            self._known[each.metric] = each
