"""Who takes part in `bench-checkpoint` and `bench-restore`, one family a file.

A contestant is named `module:class`. Its packages are imported only in its own process.
"""

from __future__ import annotations

import importlib
import importlib.util
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from bench import peers

if TYPE_CHECKING:
    from bench.contestants.base import Contestant


@dataclass(frozen=True)
class Entry:
    """Where a contestant is, and what it needs.

    Attributes:
        path: `module:class` below this package.
        packages: What must be importable; empty for what Headway itself brings.
    """

    path: str
    packages: tuple[str, ...] = ()

    def missing(self) -> list[str]:
        """Packages that are not installed here."""
        return [name for name in self.packages if importlib.util.find_spec(name) is None]

    def load(self) -> type[Contestant]:
        """The class."""
        module, _, name = self.path.partition(":")
        found: type[Contestant] = getattr(importlib.import_module(f"{__name__}.{module}"), name)
        return found


ENTRIES = {
    "headway": Entry("ours:Headway"),
    "torch_save_boto3": Entry("torch_save:TorchSave", ("boto3",)),
    "dcp_save": Entry("dcp:Save", ("s3fs",)),
    "dcp_async": Entry("dcp:AsyncSave", ("s3fs",)),
    "dcp_async_reused": Entry("dcp:AsyncSaveReused", ("s3fs",)),
    "s3torchconnector": Entry("dcp:S3Connector", ("s3torchconnector",)),
    "torch_checkpointing": Entry(
        "checkpointing:TorchCheckpointing", ("torch_checkpointing", "boto3")
    ),
    "lightning": Entry("lightning:Lightning", ("lightning", "s3fs")),
}


def absent(names: Iterable[str]) -> dict[str, str]:
    """Contestants that can't take part here, and why."""
    why = "; ".join(f"{name}: {reason}" for name, reason in peers.reasons().items())
    return {
        name: f"{', '.join(missing)} is not installed ({why or 'see hack/bench/peers.py'})"
        for name in names
        if (missing := ENTRIES[name].missing())
    }
