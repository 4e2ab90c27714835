"""The checksum of checkpoints: CRC-64/NVME.

It is the fastest one that S3 knows too (measured 14.8 GB/s; SHA-256: 1.6 GB/s).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final, cast

from awscrt.checksums import crc64nvme

if TYPE_CHECKING:
    from typing_extensions import Buffer

ALGORITHM: Final = "crc64nvme"


def crc64(data: Buffer) -> str:
    """Return the CRC-64/NVME of `data` as 16 hexadecimal digits.

    Text, because JSON readers outside Python lose integers above 2**53.
    """
    return f"{crc64nvme(cast('bytes', data)):016x}"
