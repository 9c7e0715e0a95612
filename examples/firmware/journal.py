"""Logging as one JSON object a line on standard error, where systemd's journal and log collectors pick it up."""

from __future__ import annotations

import json
import logging
import sys
from datetime import UTC, datetime

log = logging.getLogger("firmware")


class _JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, object] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "from": record.name,
            "event": record.getMessage(),
            **getattr(record, "facts", {}),
        }
        if record.exc_info:
            entry["traceback"] = self.formatException(record.exc_info)
        return json.dumps(entry, default=str)


def start() -> None:
    """Send this program's log and edgeseg's own, such as switches of the chain, to standard error."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_JsonLines())
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def event(name: str, level: int = logging.INFO, *, trace: BaseException | None = None, **facts: object) -> None:
    """Log an event with its facts, which become fields."""
    log.log(level, name, extra={"facts": facts}, exc_info=trace)
