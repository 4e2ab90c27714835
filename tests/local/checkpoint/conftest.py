"""The local tests use the same states as the unit tests, on a real S3 server."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2] / "unit" / "checkpoint"))
