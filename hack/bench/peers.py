"""Installs what the peers need into an environment of its own; says what could not be.

`python hack/bench/peers.py` is what the bench targets of the Makefile call.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

PACKAGES = (
    "boto3>=1.40",
    "s3torchconnector[dcp]>=1.5",
    "s3fs>=2026",
    "torch-checkpointing",
    "lightning",
    "hyperopt>=0.2.7",
    "scikit-optimize>=0.10",
)
NOT_TRIED = {
    "composer": "pins torch below 2.8, so that it can't share an environment with the others",
}
REASONS = Path(sys.prefix) / "peers.json"


def install(packages: Iterable[str]) -> str:
    """Install packages together; returns the reason if it failed, else nothing."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    ended = subprocess.run([*command, *packages], capture_output=True, text=True, check=False)
    if ended.returncode == 0:
        return ""
    lines = [line for line in ended.stderr.splitlines() if line.startswith("ERROR")]
    return (lines or ended.stderr.splitlines() or ["pip failed"])[-1]


def main() -> None:
    """All at once, so that pip finds versions that fit; one by one if that fails."""
    failed: dict[str, str] = {}
    if install(PACKAGES):
        failed = {name: why for name in PACKAGES if (why := install([name]))}
    REASONS.write_text(json.dumps(failed, indent=2))
    for name, why in failed.items():
        sys.stderr.write(f"not installed, so not compared: {name}: {why}\n")


def reasons() -> dict[str, str]:
    """Requirements that could not be installed, and why."""
    found: dict[str, str] = json.loads(REASONS.read_text()) if REASONS.exists() else {}
    return found


if __name__ == "__main__":
    main()
