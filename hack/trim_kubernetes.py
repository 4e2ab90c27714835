"""Delete the parts of the `kubernetes` package that the operator never loads.

The package carries a sync and an async client with a module for each API and each model, and
loads them on first use. The operator uses credentials and the Lease election: what those
imports load stays, and the other generated modules go (they are nine tenths of the package).
Runs while the image is built.
"""

import sys
from importlib import import_module
from pathlib import Path

USED = (
    "kubernetes.aio.config",
    "kubernetes.aio.leaderelection.leaderelection",
    "kubernetes.aio.leaderelection.electionconfig",
    "kubernetes.aio.leaderelection.resourcelock.leaselock",
    "kubernetes.aio.client.api.coordination_v1_api",
)
GENERATED = ("client/api", "client/models", "aio/client/api", "aio/client/models")


def main() -> None:
    """Delete every generated module that importing `USED` did not load."""
    for name in USED:
        import_module(name)
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    loaded = {Path(file) for file in files if file}
    root = Path(sys.modules["kubernetes"].__path__[0])
    deleted = [
        path
        for folder in GENERATED
        for path in (root / folder).glob("*.py")
        if path not in loaded and path.name != "__init__.py"
    ]
    for path in deleted:
        path.unlink()
        for compiled in (path.parent / "__pycache__").glob(f"{path.stem}.*.pyc"):
            compiled.unlink()
    print(f"deleted {len(deleted)} modules of the kubernetes package")


if __name__ == "__main__":
    main()
