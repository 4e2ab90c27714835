"""Which generation may commit: the marker that tells an outdated group to stop.

Conditional writes are not relied on: several stores accept their headers and ignore them. The
marker alone is therefore no lock, and need not be one. It stops an outdated group early; should
two writes cross, `CheckpointId` still puts the newer generation's checkpoints first, so what an
outdated group commits in that moment is never what a restore takes.
"""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, NonNegativeInt, ValidationError

from .errors import Fenced, ObjectMissing
from .layout import GENERATION
from .stores import Store


class Marker(BaseModel):
    """The content of generation.json.

    Attributes:
        generation: the newest worker group.
        holder: who leads it, such as the pod's name and UID.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    generation: NonNegativeInt
    holder: str


def current(store: Store) -> Marker | None:
    """Read the marker; None when nobody has claimed the job.

    A marker that cannot be parsed (a power cut can leave an empty file on a local disk) counts
    as none: refusing to train over it would help nobody, see the module's docstring.
    """
    try:
        data = store.get(GENERATION)
    except ObjectMissing:
        return None
    try:
        return Marker.model_validate_json(data)
    except ValidationError:
        return None


def claim(store: Store, generation: int, holder: str) -> Marker:
    """Make `generation` the one that may commit. Claiming again what one holds is harmless.

    Raises:
        Fenced: a newer generation, or another holder of the same, was there first.
    """
    mine = Marker(generation=generation, holder=holder)
    _refuse(current(store), mine)
    store.put(GENERATION, mine.model_dump_json().encode())
    _refuse(current(store), mine)
    return mine


def check(store: Store, generation: int) -> None:
    """Say whether `generation` may still commit.

    Raises:
        Fenced: a newer generation has been claimed.
    """
    marker = current(store)
    if marker is not None and marker.generation > generation:
        raise Fenced(marker.generation, marker.holder)


def _refuse(marker: Marker | None, mine: Marker) -> None:
    if marker is None or marker == mine or marker.generation < mine.generation:
        return
    raise Fenced(marker.generation, marker.holder)
