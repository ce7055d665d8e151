"""The log of a running node: lines for people, JSON lines for programs, and under systemd lines that the journal understands."""

import json
import logging
import os
import sys
import time
from typing import Final

# What sd-daemon(3) calls them; the journal takes a number in angle brackets at the start of a line as its priority.
_PRIORITIES: Final = ((logging.CRITICAL, 2), (logging.ERROR, 3), (logging.WARNING, 4), (logging.INFO, 6))
_DEBUG: Final = 7


def _moment(record: logging.LogRecord) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"


class JsonLines(logging.Formatter):
    """One object a line: ``time``, ``level``, ``logger``, ``message``, and ``exception`` where there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """The record as JSON; never more than one line."""
        told = {
            "time": _moment(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            told["exception"] = self.formatException(record.exc_info)
        return json.dumps(told)


class JournalLines(logging.Formatter):
    """Lines for the system's journal, which knows the time by itself: a priority, the logger and the message."""

    def format(self, record: logging.LogRecord) -> str:
        """The record, its priority on every line of it."""
        priority = next((number for level, number in _PRIORITIES if record.levelno >= level), _DEBUG)
        text = f"{record.name}: {record.getMessage()}"
        if record.exc_info:
            text += "\n" + self.formatException(record.exc_info)
        return "\n".join(f"<{priority}>{line}" for line in text.splitlines())


def _into_journal() -> bool:
    """Whether standard error leads into the journal: systemd names its device and inode."""
    try:
        found = os.fstat(sys.stderr.fileno())
    except (OSError, ValueError):
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


def set_up_logging(level: str, form: str) -> None:
    """Log to standard error from ``level`` on."""
    handler = logging.StreamHandler()
    if form == "json":
        handler.setFormatter(JsonLines())
    elif _into_journal():
        handler.setFormatter(JournalLines())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%S%z"))
    logging.basicConfig(level=level.upper(), handlers=[handler])
    # It would tell every question to the chain, with the password in its address.
    logging.getLogger("httpx").setLevel(logging.WARNING)
