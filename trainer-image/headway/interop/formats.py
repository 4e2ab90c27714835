"""The formats of others that checkpoints can be exported to."""

from enum import StrEnum


class Format(StrEnum):
    """What to export to."""

    safetensors = "safetensors"
    torch = "torch"
    dcp = "dcp"
