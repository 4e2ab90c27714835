"""Writing and reading a run's history in storage.

One object holds the points of some seconds: `metrics/<generation>-<seq>.jsonl`. Objects are never
rewritten, so that a long run costs no more per point than a short one.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from headway.checkpoint.errors import StoreUnavailable
from headway.checkpoint.layout import METRICS, metrics_key, parse_metrics_key
from headway.checkpoint.stores import Store


@dataclass(frozen=True)
class Point:
    """Values reported at one step.

    Attributes:
        time: Seconds since 1970.
        generation: Worker group that reported it.
        step: Steps done.
        epoch: Epoch, from 0, if known.
        metrics: Values by name.
    """

    time: float
    generation: int
    step: int
    epoch: int | None
    metrics: Mapping[str, float]

    def line(self) -> str:
        """This point as one line of JSON."""
        body = {"time": self.time, "step": self.step, "epoch": self.epoch}
        return json.dumps({**body, "metrics": dict(self.metrics)})


class HistoryWriter:
    """Collects points, and sends them when told to; what could not be sent is kept."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._points: list[Point] = []
        self._sent: dict[int, int] = {}

    def add(self, point: Point) -> None:
        """Remember a point."""
        self._points.append(point)

    def flush(self) -> None:
        """Send what was collected; blocks. A store that is away only delays it.

        Raises:
            StoreError: the store refuses.
        """
        points, self._points = self._points, []
        try:
            for generation in sorted({point.generation for point in points}):
                self._send(generation, [p for p in points if p.generation == generation])
                points = [p for p in points if p.generation != generation]
        except StoreUnavailable:
            return
        finally:
            self._points[:0] = points

    def _send(self, generation: int, points: Sequence[Point]) -> None:
        number = self._sent.get(generation, 0)
        body = "".join(point.line() + "\n" for point in points)
        self._store.put(metrics_key(generation, number), body.encode())
        self._sent[generation] = number + 1


def read_history(store: Store) -> list[Point]:
    """All points of a run, in the order in which they were reported.

    Raises:
        StoreError: the store can't be read.
    """
    points = []
    for key in store.list(METRICS):
        parsed = parse_metrics_key(key)
        if parsed is None:
            continue
        for line in store.get(key).decode().splitlines():
            body = json.loads(line)
            points.append(
                Point(
                    time=body["time"],
                    generation=parsed.generation,
                    step=body["step"],
                    epoch=body.get("epoch"),
                    metrics=body["metrics"],
                )
            )
    return sorted(points, key=lambda point: point.time)
