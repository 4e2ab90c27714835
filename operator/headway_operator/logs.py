"""How the operator writes its log: a JSON object or a plain line for each record."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime


class JsonFormatter(logging.Formatter):
    """One JSON object a line, with an RFC 3339 time in UTC."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as a line."""
        entry = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return json.dumps(entry)


def set_up_logging(level: str, style: str) -> None:
    """Write all logs of this level and above to standard error.

    Args:
        level: such as `INFO`.
        style: `json` or `plain`.
    """
    handler = logging.StreamHandler(sys.stderr)
    plain = logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s")
    handler.setFormatter(JsonFormatter() if style == "json" else plain)
    logging.basicConfig(level=level, handlers=[handler], force=True)
    # Kopf repeats every event of every object at this level.
    logging.getLogger("kopf").setLevel(max(logging.getLevelName(level), logging.INFO))
    logging.getLogger("kopf.objects").setLevel(logging.WARNING)
