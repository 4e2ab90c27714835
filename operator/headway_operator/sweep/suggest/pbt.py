"""Population based training: the worst members go on from checkpoints of the best.

Source: Jaderberg et al., Population Based Training of Neural Networks, arXiv 1711.09846: truncation
selection, and perturbation by 0.8 or 1.2.

A member that goes on is the same trial, its pause moved to the end of the next generation. One that
is replaced is stopped; its place is taken by a copy, a new trial that starts from the checkpoint
that another had when it paused, with other parameters. What the controller has to do is in `due`;
where a copy comes from is in its attributes:

    {"pbt": {"generation": 3, "from": 7, "step": 3000, "replaces": 12,
             "exchange": [[12, 7], [15, 2]]}}

It has to start from the checkpoint of trial 7 at step 3000, also when that has trained on by then.

All exchanges of a generation are decided at once, by what the members had when they paused. No
member goes on before all copies are made: until the first is there, the same decision comes out
again; from then on it is in their attributes.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeAlias

from headway_api.sweep import Pbt
from headway_operator.sweep.space import Choices, Continuum, Dimension, Space
from headway_operator.sweep.suggest.request import Request, Suggestion
from headway_operator.sweep.suggest.uniform import completed, drawn
from headway_operator.sweep.trial import Direction, Scalar, Trial

_FACTORS: Final = (0.8, 1.2)
_ENDED: Final = "its population has trained for all of its generations"
_REPLACED: Final = "it was among the worst of its generation: a copy of a better one goes on"
Exchange: TypeAlias = tuple[int, int]
"""Index of a member that is replaced, and of the one from whose checkpoint its copy starts."""


@dataclass(frozen=True)
class Due:
    """What a population needs now.

    Attributes:
        new: how many trials may be made: members of the first generation, or copies. `suggest` says
            what each is, given those made before it.
        until: the step at which they pause.
        promote: members that go on: their index, and the step at which they pause next.
        stop: members that never go on: their index, and why.
        over: whether nothing will ever be due again.
    """

    new: int = 0
    until: int | None = None
    promote: tuple[tuple[int, int], ...] = ()
    stop: tuple[tuple[int, str], ...] = ()
    over: bool = False


def due(
    pbt: Pbt, direction: Direction, trials: Sequence[Trial], seed: str, more: int = 2**53
) -> Due:
    """What is to be done next. Part of it may be done, in any order: then this says what is left.

    Args:
        pbt: the settings.
        direction: of the objective.
        trials: all of the sweep.
        seed: of the sweep.
        more: how many trials may still be made; members whose copy can't be made go on themselves.
    """
    founders = pbt.population - sum("from" not in ancestry(trial) for trial in trials)
    if founders > 0 and more > 0:
        return Due(new=min(founders, more), until=pbt.steps_per_generation)
    members, replaced = _members(trials)
    stop = [(trial.index, _REPLACED) for trial in replaced if trial.state == "Paused"]
    end, _, open_ = _exchanges(pbt, direction, trials, seed)
    if open_ and more > 0:
        return Due(new=min(len(open_), more), until=end, stop=tuple(stop))
    paused = [trial for trial in members if trial.state == "Paused"]
    behind = [trial for trial in paused if (trial.until or 0) < end]
    over = not behind and not any(trial.state == "Running" for trial in members)
    if over:
        stop += [(trial.index, _ENDED) for trial in paused]
    return Due(promote=tuple((trial.index, end) for trial in behind), stop=tuple(stop), over=over)


def suggest(request: Request) -> Suggestion:
    """A random member of the first generation, or a copy that is due.

    Raises:
        ValueError: no trial is due: ask `due` first.
    """
    pbt = request.algorithm.pbt
    assert pbt is not None, "the schema has settings for pbt"
    if sum("from" not in ancestry(trial) for trial in request.trials) < pbt.population:
        return Suggestion(completed(request, {}))
    end, exchanges, open_ = _exchanges(pbt, request.directions[0], request.trials, request.seed)
    if not open_:
        raise ValueError("no trial of the population is due")
    replaced, source = open_[0]
    origin = next(trial for trial in request.trials if trial.index == source)
    rng = request.random("pbt", end, replaced)
    own = {
        "generation": end // pbt.steps_per_generation - 1,
        "from": source,
        "step": end - pbt.steps_per_generation,
        "replaces": replaced,
        "exchange": [list(each) for each in exchanges],
    }
    resample = pbt.resample_probability
    return Suggestion(explored(request.space, origin.params, resample, rng), {"pbt": own})


# --- who replaces whom ---------------------------------------------------------------------------


def _exchanges(
    pbt: Pbt, direction: Direction, trials: Sequence[Trial], seed: str
) -> tuple[int, Sequence[Exchange], Sequence[Exchange]]:
    """At which step the newest generation ends, its exchanges, and those whose copy is not made."""
    steps = pbt.steps_per_generation
    members, _ = _members(trials)
    end = max((trial.until or 0 for trial in trials), default=steps)
    made = {ancestry(trial).get("replaces") for trial in trials}
    if not all(
        trial.ended or (trial.state == "Paused" and trial.until == end) for trial in members
    ):
        exchanges = _recorded(trials, end // steps - 1)
    elif end < pbt.generations * steps:
        end += steps
        exchanges = _decided(pbt, direction, members, random.Random(f"{seed}/pbt/{end}"))  # noqa: S311
    else:
        exchanges = []
    return end, exchanges, [each for each in exchanges if each[0] not in made]


def _recorded(trials: Sequence[Trial], generation: int) -> list[Exchange]:
    """The exchanges of a generation, as any of its copies has them."""
    for trial in trials:
        if ancestry(trial).get("generation") == generation:
            return [(replaced, source) for replaced, source in ancestry(trial)["exchange"]]
    return []


def _decided(
    pbt: Pbt, direction: Direction, members: Sequence[Trial], rng: random.Random
) -> list[Exchange]:
    """Who is replaced by a copy of whom: what failed, and the worst, by any of as many of the best.

    Never more than half of those that have values are replaced; ties go by index.
    """
    sign = 1.0 if direction == "Minimize" else -1.0
    losses = {
        trial.index: sign * trial.values[0]
        for trial in members
        if trial.state != "Failed" and trial.values and not math.isnan(trial.values[0])
    }
    best = sorted(losses, key=lambda index: (losses[index], index))
    if not best:
        return []
    failed = [trial.index for trial in members if trial.index not in losses]
    share = max(int(pbt.quantile * pbt.population), 1)
    count = min(max(share - len(failed), 0), len(best) // 2)
    worst = best[len(best) - count :]
    sources = best[: min(share, len(best) - count)]
    return [(index, rng.choice(sources)) for index in sorted([*failed, *worst])]


def _members(trials: Sequence[Trial]) -> tuple[list[Trial], list[Trial]]:
    """The trials of the population as it is now, and those that copies have replaced."""
    made = {ancestry(trial).get("replaces") for trial in trials}
    return (
        [trial for trial in trials if trial.index not in made],
        [trial for trial in trials if trial.index in made],
    )


def ancestry(trial: Trial) -> Mapping[str, Any]:
    """Where a copy comes from; nothing of one whose record somebody has edited."""
    own = trial.attrs.get("pbt")
    if not isinstance(own, Mapping):
        return {}
    numbers = [own.get(name) for name in ("generation", "from", "step", "replaces")]
    pairs = own.get("exchange")
    right = isinstance(pairs, list) and all(isinstance(p, list) and len(p) == 2 for p in pairs)
    return own if right and all(isinstance(number, int) for number in numbers) else {}


# --- other parameters ----------------------------------------------------------------------------


def explored(
    space: Space, params: Mapping[str, Scalar], resample: float, rng: random.Random
) -> dict[str, Scalar]:
    """Parameters near others.

    Args:
        space: of all parameters.
        params: a configuration of it; what somebody has edited out of it is drawn anew.
        resample: how likely each is drawn anew, 0 to 1.
        rng: source of the randomness.

    Returns:
        A configuration: what has become active is drawn, what is no longer active left out.
    """

    def pick(name: str, values: Dimension) -> Scalar:
        anew, value = rng.random() < resample, values.typed(params.get(name))
        return drawn(values, rng) if anew or value is None else _perturbed(values, value, rng)

    return space.assembled(pick)


def _perturbed(values: Dimension, value: Scalar, rng: random.Random) -> Scalar:
    """A number times 0.8 or 1.2, at least a step away; an item's neighbour in the list."""
    factor = rng.choice(_FACTORS)
    if isinstance(values, Choices):
        place = values.place(value) + (1 if factor > 1 else -1)
        return values.value(min(max(place, 0), values.size - 1))
    number = float(value)
    if number == 0.0:  # which no factor changes
        return drawn(values, rng)
    found = number * factor
    if isinstance(values, Continuum):
        return min(max(found, values.low), values.high)
    place, target = values.place(value), round((found - values.low) / values.step)
    if target == place:
        target += 1 if found > number else -1
    return values.value(min(max(target, 0), values.size - 1))
