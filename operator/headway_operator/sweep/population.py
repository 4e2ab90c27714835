"""Population based training: which members go on, are replaced, or are copied."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from headway_operator.sweep.situation import Situation
from headway_operator.sweep.stopping import Schedule
from headway_operator.sweep.suggest import pbt
from headway_operator.sweep.trial import Trial
from headway_operator.trainingjob.stuck import Stuck


def due(here: Situation) -> pbt.Due | None:
    """What the population needs now; None for other algorithms."""
    settings = here.spec.algorithm.pbt
    if settings is None:
        return None
    direction, seed = here.spec.objectives[0].direction, here.view.sweep.seed
    more = max(here.spec.max_trials - here.created, 0)
    return pbt.due(settings, direction, here.trials, seed, more)


def schedule(here: Situation, needs: pbt.Due) -> Schedule:
    """The same as a schedule of rungs.

    A member whose checkpoint a copy is to start from waits until the copy has it: going on, it
    might save so often that the checkpoint is cleaned away.
    """
    sources = {
        origin(trial)
        for trial in here.trials
        if trial.state == "Running" and trial.step <= _forked_at(trial)
    }
    return Schedule(
        start=lambda _: needs.until,
        promote=tuple(move for move in needs.promote if move[0] not in sources),
        stop=needs.stop,
    )


def origin(trial: Trial) -> int | None:
    """The trial from whose checkpoint this one starts."""
    found: int | None = pbt.ancestry(trial).get("from")
    return found


def checkpoint_of(here: Situation, attrs: Mapping[str, Any]) -> str | None:
    """The checkpoint from which a new member starts; None for one that starts anew.

    Raises:
        Stuck: there is none.
    """
    source = (attrs.get("pbt") or {}).get("from")
    if source is None:
        return None
    found = next((each.first for each in here.runs if each.trial.index == source), None)
    uri = found.checkpoint if found is not None else ""
    if not uri:
        raise Stuck(
            "NoCheckpoint",
            f"trial {source} has no checkpoint to copy: give the template a storage.uri, and have "
            "the script call headway.init() and save.",
        )
    return uri


def _forked_at(trial: Trial) -> int:
    """The step from which it starts; -1 for one that starts anew."""
    return int(pbt.ancestry(trial).get("step", -1))
