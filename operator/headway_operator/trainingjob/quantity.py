"""Kubernetes quantities of memory."""

from __future__ import annotations

from decimal import Decimal
from typing import Final

_UNITS: Final = {
    "m": Decimal("0.001"),
    "k": Decimal(10**3),
    **{unit: Decimal(10 ** (3 * power)) for power, unit in enumerate("MGTPE", 2)},
    **{f"{unit}i": Decimal(2 ** (10 * power)) for power, unit in enumerate("KMGTPE", 1)},
}


def whole_bytes(quantity: int | str) -> int:
    """Bytes of a quantity such as `16Gi`, `1e9` or 4096, rounded down.

    Raises:
        decimal.InvalidOperation: it is no quantity; the CRD's pattern keeps those out.
    """
    text = str(quantity)
    number = text.rstrip("mkKMGTPEi")
    unit = text[len(number) :]
    return int(Decimal(number) * (_UNITS[unit] if unit else 1))
