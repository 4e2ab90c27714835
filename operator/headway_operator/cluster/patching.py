"""How a write becomes an object: JSON merge patch and a plain server-side apply.

Nothing is changed in place: results share with their sources whatever did not change.
"""

from collections.abc import Iterable, Iterator
from typing import Any

from .client import Object


def merge_patch(target: Any, patch: Any) -> Any:
    """RFC 7396: objects merge key by key, null removes, anything else replaces."""
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        else:
            result[key] = merge_patch(result.get(key), value)
    return result


def apply(live: Object, *, applied: Object, desired: Object, others: Iterable[Object]) -> Object:
    """The object after one manager's server-side apply.

    Lists are atomic here: the real server merges those whose schema names keys.

    Args:
        live: the object now.
        applied: what this manager applied last.
        desired: what it applies now.
        others: what other managers applied last; their fields stay.
    """
    pruned = _without_dropped(live, applied, desired, list(others))
    result: Object = _overlay(pruned, desired)
    return result


def conflicting_fields(desired: Object, others: Iterable[Object]) -> list[str]:
    """Dotted paths to which another manager applied another value."""
    wanted = dict(_leaves(desired))
    return sorted(
        ".".join(path)
        for other in others
        for path, value in _leaves(other)
        if path in wanted and wanted[path] != value
    )


def _without_dropped(
    live: Object, applied: Object, desired: Object, others: list[Object]
) -> Object:
    result = dict(live)
    for key, before in applied.items():
        if key not in result:
            continue
        kept_by = [other[key] for other in others if key in other]
        now = result[key]
        if isinstance(before, dict) and isinstance(now, dict):
            below = [other for other in kept_by if isinstance(other, dict)]
            result[key] = _without_dropped(now, before, _child(desired, key), below)
            if not result[key] and key not in desired and not kept_by:
                del result[key]
        elif key not in desired and not kept_by:
            del result[key]
    return result


def _child(parent: Object, key: str) -> Object:
    value = parent.get(key)
    return value if isinstance(value, dict) else {}


def _overlay(target: Any, desired: Any) -> Any:
    if not (isinstance(target, dict) and isinstance(desired, dict)):
        return desired
    return {
        **target,
        **{
            key: _overlay(target[key], value) if key in target else value
            for key, value in desired.items()
        },
    }


def _leaves(value: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    if isinstance(value, dict):
        for key, child in value.items():
            yield from _leaves(child, (*path, key))
    else:
        yield path, value
