"""The file format of a part: a genuine safetensors file, so that any tool can open it.

Format: https://huggingface.co/docs/safetensors/index#format (8 bytes little-endian length of the
header, the header as JSON, then the bytes of all tensors without holes).

A tensor that lies whole in a part keeps its name, dtype and shape. A piece of one is a
one-dimensional tensor called ``<name>@<first element>``. Fragments that follow each other are one
entry: cutting into chunks is for checksums and shows nowhere in the file.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from .state import Fragment, TensorSpec

_ALIGNMENT = 8


@dataclass(frozen=True, slots=True)
class _Piece:
    name: str
    start: int
    count: int

    @property
    def stop(self) -> int:
        return self.start + self.count


def in_file_order(specs: Mapping[str, TensorSpec], fragments: Iterable[Fragment]) -> list[Fragment]:
    """Order fragments as they lie in the file.

    The largest elements come first, so that every tensor starts at a multiple of its element
    size: readers that map the file into memory need that.
    """
    return sorted(fragments, key=lambda f: (-specs[f.name].item_size, f.name, f.start))


def header(
    specs: Mapping[str, TensorSpec], fragments: Sequence[Fragment], metadata: Mapping[str, str]
) -> bytes:
    """Return everything before the data: length and JSON header, padded to 8 bytes.

    Args:
        specs: by name; must hold every tensor named in `fragments`.
        fragments: in file order.
        metadata: free text for people and tools.
    """
    entries: dict[str, object] = {"__metadata__": {"format": "pt", **metadata}}
    offset = 0
    for piece in _merge(fragments):
        spec = specs[piece.name]
        end = offset + piece.count * spec.item_size
        whole = piece.count == spec.count
        entries[piece.name if whole else f"{piece.name}@{piece.start}"] = {
            "dtype": spec.dtype,
            "shape": list(spec.shape) if whole else [piece.count],
            "data_offsets": [offset, end],
        }
        offset = end
    text = json.dumps(entries, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % _ALIGNMENT)
    return len(text).to_bytes(8, "little") + text


def _merge(fragments: Iterable[Fragment]) -> list[_Piece]:
    pieces: list[_Piece] = []
    for fragment in fragments:
        last = pieces[-1] if pieces else None
        if last is not None and (last.name, last.stop) == (fragment.name, fragment.start):
            pieces[-1] = _Piece(last.name, last.start, last.count + fragment.count)
        else:
            pieces.append(_Piece(fragment.name, fragment.start, fragment.count))
    return pieces
