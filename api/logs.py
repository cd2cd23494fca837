"""The service's log: one JSON object per line on standard error, of which no secret, query or body is ever a part."""

from __future__ import annotations

import json
import logging
import re
import sys
import traceback
from datetime import UTC, datetime
from typing import TextIO

_KEY = re.compile(r"(sk-steno-[a-z2-7]{12})-[A-Za-z0-9_-]+")
_USERINFO = re.compile(r"(\b[a-z][a-z0-9+.-]*://)[^\s/@\"']+@", re.IGNORECASE)
_QUERY = re.compile(r"(\b[a-z][a-z0-9+.-]*://[^\s?\"']*)\?[^\s\"']*", re.IGNORECASE)
_FRAMES = 12
_LONGEST = 2000


class JsonLines(logging.Formatter):
    """A record as a line of JSON. Of an exception its kind and where it arose: its text may quote anything."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": redacted(_message(record)),
            **getattr(record, "fields", {}),
        }
        if record.exc_info and record.exc_info[1] is not None:
            line |= _error_fields(record.exc_info[1])
        return json.dumps(line, ensure_ascii=True, default=str)


def configure(stream: TextIO | None = None) -> None:
    """Have this process log so: requests and warnings of the service, of its server and of its libraries."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonLines())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.WARNING)
    for name in ("api", "uvicorn"):
        logger = logging.getLogger(name)
        logger.handlers.clear()
        logger.propagate = True
        logger.setLevel(logging.INFO if name == "api" else logging.WARNING)


def failure(log: logging.Logger, error: BaseException, **fields: str) -> None:
    """Log an unexpected error, with its kind and location."""
    log.error("unexpected error", extra={"fields": {**fields, **_error_fields(error)}})


def redacted(text: str) -> str:
    """Without keys, queries of URLs and passwords in them."""
    text = _KEY.sub(r"\1-…", text)
    return _QUERY.sub(r"\1?…", _USERINFO.sub(r"\1…@", text))[:_LONGEST]


def _message(record: logging.LogRecord) -> str:
    try:
        return record.getMessage()
    except Exception:
        return str(record.msg)


def _error_fields(error: BaseException) -> dict[str, object]:
    frames = traceback.extract_tb(error.__traceback__)[-_FRAMES:]
    return {
        "error": type(error).__name__,
        "at": [f"{frame.filename.rpartition('site-packages/')[2]}:{frame.lineno} {frame.name}" for frame in frames],
    }
