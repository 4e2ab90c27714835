"""Pods that their peers no longer hear: what agents say of each other."""

from __future__ import annotations

from collections.abc import Collection, Hashable
from dataclasses import dataclass, field
from typing import Final

CONTINUOUS: Final = 10.0
"""Seconds. Words further apart are no longer about the same silence: who can't reach its lead says
so every 7 s, of which 5 are its attempt to connect."""
ANSWERED: Final = 10.0
"""Seconds. A pod that has spoken after such words lives, and speaks as often as that for as long as
it can't reach its lead; a lead that hears nothing of a peer speaks every second."""


@dataclass
class _Words:
    """What one pod says of another: when first and last."""

    first: float
    last: float


@dataclass
class _Group:
    words: dict[tuple[str, str], _Words] = field(default_factory=dict)
    """By who says it, of whom."""
    answers: dict[str, float] = field(default_factory=dict)
    """When pods spoke last of which somebody said that it hears nothing of them."""


class Silences:
    """Who says that it hears nothing of whom, and whether those say anything themselves.

    In memory only: agents repeat it for as long as it lasts, to whichever replica leads. A group in
    which all hear each other takes no room. Times are monotonic seconds.

    Args:
        since: when we began to listen: who spoke before that, we don't know.
    """

    def __init__(self, since: float = float("-inf")) -> None:
        self._since = since
        self._groups: dict[Hashable, _Group] = {}

    def spoke(self, key: Hashable, uid: str, now: float) -> None:
        """A pod of a group has spoken, whatever it said."""
        group = self._groups.get(key)
        if group is not None:
            group.answers[uid] = now

    def said(self, key: Hashable, uid: str, missed: Collection[str], now: float) -> None:
        """A pod of a group has told of all pods that it hears nothing of; often there are none."""
        self.spoke(key, uid, now)
        group = self._groups.get(key)
        if group is None and not missed:
            return
        group = group or self._groups.setdefault(key, _Group())
        for pair, words in list(group.words.items()):
            withdrawn = pair[0] == uid and pair[1] not in missed
            if withdrawn or now - words.last > CONTINUOUS:
                del group.words[pair]
        for other in missed:
            group.words.setdefault((uid, other), _Words(now, now)).last = now
        if not group.words:
            del self._groups[key]

    def lasting(self, key: Hashable, seconds: float, now: float) -> frozenset[str]:
        """UIDs of pods that another hears nothing of for so many seconds, and that don't answer."""
        group = self._groups.get(key)
        if group is None:
            return frozenset()
        return frozenset(
            uid
            for (_, uid), words in group.words.items()
            if words.last - words.first >= seconds
            and words.last - group.answers.get(uid, self._since) >= ANSWERED
            and now - words.last <= CONTINUOUS
        )

    def forget(self, key: Hashable) -> None:
        """Drop a group that is gone."""
        self._groups.pop(key, None)
