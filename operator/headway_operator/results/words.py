"""How a sweep is told in words: pure text, the same in the terminal and in the report."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping

from headway_api.sweep import FloatRange, IntRange, Objective, SearchParameter, Stopping, SweepSpec
from headway_operator.results.findings import Findings
from headway_operator.sweep.space import text
from headway_operator.sweep.status import decimal
from headway_operator.sweep.trial import Scalar


def plain(said: str) -> str:
    """A text that a terminal shows and does not obey."""
    return "".join(c if c.isprintable() else " " for c in said)


def short(value: Scalar) -> str:
    """A parameter's value as people want to see it: 4 significant digits."""
    return f"{value:.4g}" if isinstance(value, float) else plain(text(value))


def pairs(params: Mapping[str, Scalar]) -> str:
    """Parameters in a line."""
    return "  ".join(f"{name}={short(value)}" for name, value in params.items())


def number(value: float | None) -> str:
    """A trial's value: 6 significant digits, as in the sweep's status."""
    return "" if value is None else decimal(value)


def duration(seconds: float) -> str:
    """Seconds as people say them."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 90 else f"{minutes // 60} h {minutes % 60} min"


def aim(objective: Objective) -> str:
    """What is wanted of an objective."""
    said = f"{objective.direction.lower()} {objective.metric}"
    if objective.take == "Last":
        said += " (a trial's last report)"
    return said if objective.goal is None else f"{said}, goal {objective.goal:g}"


def headline(found: Findings) -> str:
    """How far a sweep is, in a line."""
    here, counts = found.situation, found.situation.counts
    ended = [
        f"{count} {name}"
        for name, count in (
            ("complete", counts.complete),
            ("stopped", counts.stopped),
            ("failed", counts.failed),
        )
        if count
    ]
    going = [
        f"{count} {name}"
        for name, count in (("running", counts.running), ("paused", counts.paused))
        if count
    ]
    said = f"{here.ended} of {max(found.spec.max_trials, here.created)} trials have ended"
    if ended:
        said += f" ({', '.join(ended)})"
    return "; ".join([said, *going])


def spent(found: Findings) -> str:
    """What it has cost so far, of what it may cost."""
    seconds, limit = found.situation.active_seconds, found.spec.time_budget_seconds
    said = f"{found.steps} steps"
    if seconds or limit:
        said += f", active for {duration(seconds)}"
    return said if limit is None else f"{said} of {duration(limit)}"


def values_of(parameter: SearchParameter) -> str:
    """The values that a parameter can have."""
    if parameter.choice is not None:
        said = ", ".join(text(item) for item in parameter.choice)
    else:
        said = _range(parameter.float_ or parameter.int_ or IntRange(min=0, max=0))
    if parameter.when is not None:
        wanted = " or ".join(text(value) for value in parameter.when.values)
        said += f"; only when {parameter.when.parameter} is {wanted}"
    return said


def _range(numbers: FloatRange | IntRange) -> str:
    kind = "number" if isinstance(numbers, FloatRange) else "whole number"
    said = f"{kind} from {_exact(numbers.min)} to {_exact(numbers.max)}"
    if numbers.log:
        said += ", on a log scale"
    if isinstance(numbers, FloatRange) and numbers.step is not None:
        said += f", in steps of {_exact(numbers.step)}"
    if isinstance(numbers, IntRange) and numbers.step != 1:
        said += f", in steps of {numbers.step}"
    return said


def _exact(value: float) -> str:
    return str(int(value)) if math.isfinite(value) and value == int(value) else repr(value)


def how(spec: SweepSpec) -> Iterator[tuple[str, str]]:
    """How is searched: what is told, and what of it."""
    chosen = spec.algorithm
    said: str = chosen.name
    if chosen.name in {"tpe", "gp"}:
        said += f", after {chosen.startup_trials} random trials"
    if chosen.population is not None:
        said += f", population {chosen.population}"
    if chosen.pbt is not None:
        said += (
            f", population {chosen.pbt.population}, {chosen.pbt.generations} generations of "
            f"{chosen.pbt.steps_per_generation} steps"
        )
    yield "algorithm", said
    for rule in rules(spec.stopping):
        yield "stopping", rule
    yield "trials", f"at most {spec.max_trials}, {spec.parallel_trials} at the same time"
    if spec.repeats.count > 1:
        weight = spec.repeats.spread_weight
        worse = f", made worse by {weight:g} standard deviations" if weight else ""
        yield "repeats", f"{spec.repeats.count} runs of each, which counts with the mean{worse}"
    if spec.time_budget_seconds is not None:
        yield "time budget", duration(spec.time_budget_seconds)
    if spec.seed is not None:
        yield "seed", str(spec.seed)
    for other in spec.warm_start or ():
        yield "warm start", other.name


def rules(stopping: Stopping | None) -> Iterator[str]:
    """The rules that end trials early, by their names and settings in the spec."""
    told = {} if stopping is None else stopping.model_dump(by_alias=True, exclude_none=True)
    for name, settings in told.items():
        if isinstance(settings, dict):
            said = ", ".join(f"{key} {value}" for key, value in settings.items())
            yield f"{name}: {said}" if said else name
        else:
            yield f"{name}: {settings}"
