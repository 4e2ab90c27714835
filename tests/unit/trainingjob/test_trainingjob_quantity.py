"""Quantities of memory, as Kubernetes writes them."""

import pytest

from headway_operator.trainingjob.quantity import whole_bytes


@pytest.mark.parametrize(
    ("quantity", "expected"),
    [
        (4096, 4096),
        ("4096", 4096),
        ("1Ki", 1024),
        ("16Gi", 16 * 2**30),
        ("1.5Gi", 3 * 2**29),
        ("2G", 2 * 10**9),
        ("500k", 500_000),
        ("1e9", 10**9),
        ("1500m", 1),
        ("0", 0),
    ],
)
def test_a_quantity_is_whole_bytes_rounded_down(quantity: int | str, expected: int) -> None:
    assert whole_bytes(quantity) == expected
