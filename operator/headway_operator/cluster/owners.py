"""Who owns what: the index behind garbage collection by owner references."""

from typing import TypeAlias

from .client import Object

Key: TypeAlias = tuple[str | None, str]
"""Namespace and name."""
Collection: TypeAlias = tuple[str, str]
"""API group and plural."""
Place: TypeAlias = tuple[Collection, Key]


class Owners:
    """Which objects live and which name them as owners, by uid."""

    def __init__(self) -> None:
        self._living: set[str] = set()
        # Dicts as ordered sets: the order of collection must not hang on hash seeds.
        self._dependents: dict[str, dict[Place, None]] = {}

    def update(self, place: Place, old: Object | None, new: Object | None) -> None:
        """Follow one write."""
        if old is not None:
            for uid in owner_uids(old):
                self._dependents.get(uid, {}).pop(place, None)
            self._living.discard(old["metadata"]["uid"])
        if new is not None:
            for uid in owner_uids(new):
                self._dependents.setdefault(uid, {})[place] = None
            self._living.add(new["metadata"]["uid"])

    def dependents(self, uid: str) -> list[Place]:
        """Where the objects are that name this owner."""
        return list(self._dependents.get(uid, ()))

    def absent(self, item: Object) -> frozenset[str]:
        """The owners that an object names and that do not live."""
        return frozenset(owner_uids(item)) - self._living


def owner_uids(item: Object) -> list[str]:
    """The uids in an object's owner references."""
    return [reference["uid"] for reference in item["metadata"].get("ownerReferences") or ()]


def disowned(item: Object, uids: frozenset[str]) -> list[Object]:
    """An object's owner references without those owners."""
    references = item["metadata"].get("ownerReferences") or ()
    return [reference for reference in references if reference["uid"] not in uids]
