"""
Log lines: one JSON object a line, an event name and its fields.

No sentence is built here, and no secret leaves: what looks like a credential is
cut out at the sink, whoever wrote it. Nothing of a prompt may be handed in.
"""

import json
import logging
import re
import sys
import time
from typing import Literal, TextIO

Level = Literal["debug", "info", "warning", "error"]

_RANK = {"debug": 10, "info": 20, "warning": 30, "error": 40}
_CREDENTIAL = re.compile(r"(\bph_[0-9A-Za-z]+_)[0-9A-Za-z_-]+|(\b[Bb]earer\s+)[^\s\"\\]+")


class Log:
    """Writes events of one process. A stream that is gone or full loses the line, never the caller."""

    def __init__(
        self, process: str, *, stream: TextIO | None = None, least: Level = "info", **always: object
    ) -> None:
        """`always`: fields of every line, such as which of several equal processes writes it."""
        self._always = {"process": process, **always}
        self._stream = stream or sys.stderr
        self._least = _RANK[least]

    def event(self, name: str, level: Level = "info", /, **fields: object) -> None:
        if _RANK[level] < self._least:
            return
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime())
        line = {"time": f"{stamp}Z", "level": level, **self._always, "event": name, **fields}
        text = _CREDENTIAL.sub(_without_secret, json.dumps(line, default=str, ensure_ascii=False))
        try:
            self._stream.write(text + "\n")
            self._stream.flush()
        except (OSError, ValueError):  # a full disk or a closed pipe must not stop what is being logged
            pass

    def failure(self, name: str, error: BaseException, /, **fields: object) -> None:
        """An error as its class and message; its level is the error's own, where it has one."""
        level: Level = getattr(error, "level", "error")
        self.event(name, level, error=type(error).__name__, message=str(error), **fields)

    def handler(self) -> logging.Handler:
        """For libraries that write to `logging`: their lines in the same form."""
        return _Handler(self)


class _Handler(logging.Handler):
    def __init__(self, log: Log) -> None:
        super().__init__()
        self._log = log

    def emit(self, record: logging.LogRecord) -> None:
        level: Level = "error" if record.levelno >= logging.ERROR else "warning"
        if record.levelno < logging.WARNING:
            level = "info" if record.levelno >= logging.INFO else "debug"
        cause = record.exc_info[1] if record.exc_info else None
        fields = {"cause": repr(cause)} if cause else {}
        self._log.event("library_log", level, logger=record.name, message=record.getMessage(), **fields)


def _without_secret(found: re.Match[str]) -> str:
    return f"{found[1] or found[2]}[cut]"
