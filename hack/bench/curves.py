"""A sweep without a cluster: learning curves, slots, and the rules that stop and promote.

Time is counted, not waited for. What decides is the operator's own `schedule`, asked after each
change with nothing but the trials, as the operator asks it.
"""

from __future__ import annotations

import heapq
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from headway_api.sweep import SweepSpec
from headway_operator.sweep.stopping import schedule
from headway_operator.sweep.trial import Point, State, Trial
from headway_operator.sweep.value import better


@dataclass(frozen=True)
class Course:
    """What becomes of a configuration that is trained.

    Attributes:
        values: The objective after each step; the script ends with the last.
        seconds: How long a step takes.
        fails_at: The step after which it fails, if it does.
    """

    values: Sequence[float]
    seconds: float = 1.0
    fails_at: int | None = None

    @property
    def steps(self) -> int:
        """Where it ends by itself."""
        return len(self.values) if self.fails_at is None else self.fails_at


@dataclass(frozen=True)
class Leg:
    """Steps of a trial between a start and a pause.

    Attributes:
        index: Of the trial.
        started: When, in seconds.
        first: Steps done before.
        last: Steps done after.
        seconds: How long a step takes.
    """

    index: int
    started: float
    first: int
    last: int
    seconds: float

    def time_of(self, step: int) -> float:
        """When a step is done."""
        return self.started + (step - self.first) * self.seconds

    def steps_by(self, time: float) -> int:
        """How many of its steps are done by then."""
        if time >= self.time_of(self.last):
            return self.last - self.first
        return max(int((time - self.started) / self.seconds), 0)


class Simulation:
    """One sweep.

    Attributes:
        trials: By index, as they are now.
        legs: All that has been trained, in the order of starts.
    """

    def __init__(
        self,
        spec: SweepSpec,
        course: Callable[[int], Course],
        done: Callable[[int], int] = lambda writes: writes,
    ) -> None:
        """Make an empty sweep.

        Args:
            spec: Of the sweep: rules, direction, maxTrials and parallelTrials count.
            course: What becomes of the configuration of an index.
            done: How many of so many writes the operator does before it crashes and starts anew.
        """
        self.trials: dict[int, Trial] = {}
        self.legs: list[Leg] = []
        self._spec, self._course, self._done = spec, course, done
        self._direction = spec.objectives[0].direction
        self._ends: list[tuple[float, int]] = []
        self._now = 0.0

    def run(self, target: float | None = None) -> float:
        """Go on to the end of the sweep, or until a trial is as good as this.

        Returns:
            When that was; infinity if it never was.
        """
        hit, seen = math.inf, 0
        self._decide()
        while self._ends and self._ends[0][0] < hit:
            self._now, index = heapq.heappop(self._ends)
            self._arrive(self.trials[index])
            self._decide()
            if target is not None:
                hit = min(hit, *(self._hit(leg, target) for leg in self.legs[seen:]), math.inf)
                seen = len(self.legs)
        return hit

    def steps_by(self, time: float = math.inf) -> int:
        """Steps that all trials together have done by then."""
        return sum(leg.steps_by(time) for leg in self.legs)

    @property
    def seconds(self) -> float:
        """When the last of all legs ends."""
        return max(leg.time_of(leg.last) for leg in self.legs)

    def best(self) -> float:
        """The best value of all trials."""
        values = [t.values[0] for t in self.trials.values() if t.values is not None]
        return min(values) if self._direction == "Minimize" else max(values)

    def _hit(self, leg: Leg, target: float) -> float:
        values = self._course(leg.index).values
        for step in range(leg.first + 1, leg.last + 1):
            value = values[step - 1]
            if not math.isnan(value) and not better(self._direction, target, value):
                return leg.time_of(step)
        return math.inf

    def _arrive(self, trial: Trial) -> None:
        """The end of a leg: a pause, a failure, or the end of the script."""
        course, last = self._course(trial.index), self._leg_end(trial)
        new = [Point(step, course.values[step - 1]) for step in range(trial.step + 1, last + 1)]
        trial = replace(trial, step=last, curve=(*trial.curve, *new))
        value = trial.best(self._direction)
        state: State = "Paused"
        if last == course.fails_at or (last == course.steps and value is None):
            state = "Failed"
        elif last == course.steps:
            state = "Complete"
        values = None if value is None else (value,)
        self.trials[trial.index] = replace(trial, state=state, values=values)

    def _leg_end(self, trial: Trial) -> int:
        return min(self._course(trial.index).steps, trial.until or self._course(trial.index).steps)

    def _decide(self) -> None:
        while writes := self._writes():
            for trial in writes[: self._done(len(writes))]:
                self.trials[trial.index] = trial
                if trial.state == "Running":
                    self._begin(trial)

    def _writes(self) -> list[Trial]:
        """What the operator would write now, in its order: trials as they will be."""
        trials = [self.trials[index] for index in sorted(self.trials)]
        more = self._spec.max_trials - len(trials)
        plan = schedule(self._spec, trials, more)
        running = sum(trial.state == "Running" for trial in trials)
        writes = [replace(self.trials[index], state="Stopped") for index, _ in plan.stop]
        begun = [replace(self.trials[i], state="Running", until=u) for i, u in plan.promote]
        for index in range(len(trials), len(trials) + min(more, self._free(running))):
            begun.append(Trial(index, {}, "Running", until=plan.start(index)))
        return writes + begun[: self._free(running)]

    def _free(self, running: int) -> int:
        return max(self._spec.parallel_trials - running, 0)

    def _begin(self, trial: Trial) -> None:
        seconds = self._course(trial.index).seconds
        leg = Leg(trial.index, self._now, trial.step, self._leg_end(trial), seconds)
        self.legs.append(leg)
        heapq.heappush(self._ends, (leg.time_of(leg.last), leg.index))


def spec(stopping: Mapping[str, Any] | None, trials: int, slots: int, **fields: Any) -> SweepSpec:
    """The spec of a sweep of which nothing counts but its rules and sizes."""
    return SweepSpec.model_validate(
        {
            "parameters": [{"name": "x", "float": {"min": 0, "max": 1}}],
            "objectives": [{"metric": "loss"}],
            "template": {"spec": {}},
            "stopping": stopping,
            "maxTrials": trials,
            "parallelTrials": slots,
            **fields,
        }
    )


def power_law(dice: random.Random, steps: int) -> Course:
    """A learning curve a + b * step^-c with noise.

    Where it ends (a), how far it has to go (b) and how fast it does (c) are drawn apart from each
    other: curves cross, and the best at the end is often not the best at the beginning.
    """
    a, b = math.exp(dice.gauss(0.0, 0.5)), math.exp(dice.gauss(0.0, 0.5))
    c = dice.uniform(0.3, 1.2)
    noise = 0.02
    values = [a + b * step**-c + dice.gauss(0.0, noise) for step in range(1, steps + 1)]
    return Course(values, seconds=math.exp(dice.gauss(0.0, 0.25)))


def courses(seed: int, steps: int) -> Callable[[int], Course]:
    """A course for each index, drawn from a seed; the same for the same index."""
    known: dict[int, Course] = {}

    def course(index: int) -> Course:
        if index not in known:
            known[index] = power_law(random.Random(f"{seed}/{index}"), steps)
        return known[index]

    return course


@dataclass(frozen=True)
class Saving:
    """What it takes to find what random search finds, as shares of all that random search takes.

    Both are infinite if it was not found with 4 times as many trials.

    Attributes:
        steps: Training steps of all trials together.
        seconds: Time.
    """

    steps: float
    seconds: float


def saving(
    stopping: Mapping[str, Any] | None, course: Callable[[int], Course], trials: int, slots: int = 8
) -> Saving:
    """What a rule saves.

    Both try the same configurations in the same order; who stops trials may go on to new ones.

    Args:
        stopping: The rule, as in a spec. None: what random search itself takes to its best.
        course: What becomes of the configuration of an index.
        trials: How many of them random search trains to the end.
        slots: Trials side by side.
    """
    everything = Simulation(spec(None, trials, slots), course)
    everything.run()
    search = Simulation(spec(stopping, 4 * trials, slots), course)
    found = search.run(everything.best())
    if math.isinf(found):
        return Saving(math.inf, math.inf)
    return Saving(search.steps_by(found) / everything.steps_by(), found / everything.seconds)


def cost(stopping: Mapping[str, Any], seed: int, trials: int, steps: int, slots: int = 8) -> float:
    """Share of random search's steps that a rule takes on curves of `power_law` (see `saving`).

    Args:
        stopping: The rule, as in a spec.
        seed: Of the configurations.
        trials: How many of them random search trains to the end.
        steps: Of a whole training.
        slots: Trials side by side.
    """
    return saving(stopping, courses(seed, steps), trials, slots).steps
