"""Headway inside a pod: distributed training that never loses its place.

`headway.init()` is all that most scripts need. It is imported when it is first used, so that the
agent and the command line, which share this package, never load torch.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from headway.interop.loading import load, load_model
    from headway.train import Loader, Run, init

__all__ = ["Loader", "Run", "init", "load", "load_model"]


def __getattr__(name: str) -> Any:
    if name in ("load", "load_model"):
        from headway.interop import loading  # noqa: PLC0415

        return getattr(loading, name)
    if name in __all__:
        from headway import train  # noqa: PLC0415 (see above)

        return getattr(train, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
