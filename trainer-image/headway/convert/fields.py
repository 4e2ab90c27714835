"""Reading a manifest so that nothing gets lost: a field that is taken is gone, the rest is told."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

T = TypeVar("T")
_NAMES: dict[type, str] = {
    int: "a number",
    str: "a text",
    bool: "true or false",
    list: "a list",
    dict: "a mapping",
}


class ConvertError(Exception):
    """The input can't be converted; the message says what to change."""


class Fields:
    """A mapping of the input, from which each field is taken once.

    Attributes:
        path: Where it is in the document, e.g. `spec.runPolicy`.
    """

    def __init__(self, content: Any, path: str = "") -> None:
        if content is not None and not isinstance(content, Mapping):
            raise ConvertError(f"{path or 'the document'} should be a mapping")
        self.path = path
        self._content: dict[str, Any] = dict(content or {})
        self._opened: dict[str, list[Fields]] = {}

    @classmethod
    def around(cls, name: str, inner: Fields) -> Fields:
        """A mapping of one field, in which another lies that keeps its path."""
        outer = cls({}, inner.path)
        outer._opened[name] = [inner]
        return outer

    def __contains__(self, name: str) -> bool:
        return self._content.get(name) is not None

    def at(self, name: str) -> str:
        """Path of a field."""
        return f"{self.path}.{name}" if self.path else name

    def raw(self) -> dict[str, Any]:
        """A copy of what is still there."""
        return copy.deepcopy(self._content)

    def take(self, name: str, kind: type[T]) -> T | None:
        """The value of a field, which is then gone; None where there is none.

        Raises:
            ConvertError: it is of another type.
        """
        value = self._content.pop(name, None)
        if value is None:
            return None
        if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
            raise ConvertError(f"{self.at(name)} should be {_NAMES[kind]}")
        return value

    def take_any(self, name: str) -> Any:
        """The same for a value of any type."""
        return self._content.pop(name, None)

    def texts(self, name: str) -> list[str]:
        """A list of texts, which is then gone; numbers in it become texts, as in a command."""
        values: list[Any] = self.take(name, list) or []
        return [value if isinstance(value, str) else str(value) for value in values]

    def named(self, name: str) -> list[dict[str, Any]]:
        """A list of mappings that have a name, which is then gone."""
        values: list[Any] = self.take(name, list) or []
        for index, value in enumerate(values):
            if not isinstance(value, dict) or not isinstance(value.get("name"), str):
                raise ConvertError(f"{self.at(name)}[{index}] should be a mapping with a name")
        return values

    def inner(self, name: str) -> Fields:
        """The mapping in a field, to take from; empty where there is none."""
        if name not in self._opened:
            self._opened[name] = [Fields(self._content.pop(name, None), self.at(name))]
        return self._opened[name][0]

    def items(self, name: str) -> list[Fields]:
        """The mappings of a list, to take from."""
        if name not in self._opened:
            values: list[Any] = self.take(name, list) or []
            path = self.at(name)
            self._opened[name] = [Fields(item, f"{path}[{i}]") for i, item in enumerate(values)]
        return self._opened[name]

    def left(self) -> Iterator[tuple[str, Any]]:
        """What nobody took: path and value, once for a whole that was never opened.

        What is empty says nothing, and is not told.
        """
        for name, value in self._content.items():
            if value not in (None, "", {}, []):
                yield self.at(name), value
        for opened in self._opened.values():
            for fields in opened:
                yield from fields.left()

    def drop(self) -> None:
        """Takes all that is left."""
        self._content.clear()
        self._opened.clear()


def leaves(value: Any, path: str = "") -> Iterator[tuple[str, Any]]:
    """All values in a document that are not mappings or lists, with their paths."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            yield from leaves(item, f"{path}.{name}" if path else str(name))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif value is not None:
        yield path, value
