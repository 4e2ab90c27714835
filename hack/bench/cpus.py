"""Which CPUs a bench's trainer and S3 server may use."""

from __future__ import annotations

from enum import Enum

HELP = (
    "spare: the trainer computes in one thread, and what it does beside that finds another CPU, as "
    "with training on GPUs; the S3 server is on CPU 1. one: the trainer and all that belongs to it "
    "on CPU 0. any: as the kernel and torch like it."
)


class Cpus(Enum):
    """See `HELP`."""

    SPARE = "spare"
    ONE = "one"
    ANY = "any"

    @property
    def trainer(self) -> int | None:
        """The CPU that the trainer is tied to."""
        return 0 if self is Cpus.ONE else None

    @property
    def server(self) -> int | None:
        """The CPU that the S3 server is tied to."""
        return None if self is Cpus.ANY else 1

    @property
    def env(self) -> dict[str, str]:
        """Environment of the trainer."""
        return {} if self is Cpus.ANY else {"OMP_NUM_THREADS": "1"}
