"""A training loop with one contestant's checkpoints, driven turn by turn by `bench-checkpoint`."""

from __future__ import annotations

import sys
import time

from bench.contestants import ENTRIES
from bench.contestants.base import Contestant, build, forward_backward
from bench.turns import Line, Message

WARM_STEPS = 3
POLL_SECONDS = 0.002


class Loop:
    """The loop of one contestant."""

    def __init__(self, line: Line, name: str, size_mb: int) -> None:
        self.line = line
        self.model, self.optimizer = build(size_mb)
        for _ in range(WARM_STEPS):
            forward_backward(self.model, self.optimizer)
            self.optimizer.step()
        line.send({"ready": "to be measured"})
        line.receive()
        make = ENTRIES[name].load()
        self.contestant: Contestant = make(self.model, self.optimizer, self._told)
        self.contestant.begin()

    def _told(self) -> float | None:
        if not self.line.waiting():
            return None
        message = self.line.receive()
        return None if message is None else float(message["durable"])

    def step(self, *, tiny: bool) -> None:
        """A step up to its boundary; a `tiny` one goes straight to the optimizer."""
        if not tiny:
            forward_backward(self.model, self.optimizer)
        with self.contestant.guard():
            self.optimizer.step()

    def turn(self, key: str, before: int, *, tiny: bool) -> Message:
        """Train, save once, and train on until the save is durable.

        Returns:
            `before`: ends of the steps before the save, the first being the begin of the first;
            `call`: begin and end of the save; `after`: ends of the steps since; `durable`.
        """
        self.contestant.prepare(before + 1)
        stamps = [time.monotonic()]
        for _ in range(before):
            self.step(tiny=tiny)
            self.contestant.boundary()
            stamps.append(time.monotonic())
        self.step(tiny=tiny)
        call = [time.monotonic()]
        self.contestant.save(key)
        call.append(time.monotonic())
        after: list[float] = []
        durable: float | None = None
        while durable is None or not after:
            self.step(tiny=tiny)
            self.contestant.boundary()
            after.append(time.monotonic())
            durable = durable or self.contestant.durable()
        return {"before": stamps, "call": call, "after": after, "durable": durable}

    def rest(self, key: str) -> Message:
        """Save once and do nothing else, so that all work of the process is the save's."""
        self.contestant.prepare(1)
        self.step(tiny=False)
        self.line.send({"ready": "to save"})
        self.line.receive()
        call = [time.monotonic()]
        self.contestant.save(key)
        call.append(time.monotonic())
        while (durable := self.contestant.durable()) is None:
            time.sleep(POLL_SECONDS)
        return {"call": call, "durable": durable}


def main() -> None:
    name, size_mb = sys.argv[1], int(sys.argv[2])
    line = Line.to_bench()
    loop = Loop(line, name, size_mb)
    line.send({"ready": "for turns"})
    while (order := line.receive()) is not None:
        if order["kind"] == "idle":
            line.send(loop.rest(order["key"]))
        else:
            tiny = order["kind"] == "back_to_back"
            line.send(loop.turn(order["key"], order["before"], tiny=tiny))


if __name__ == "__main__":
    main()
