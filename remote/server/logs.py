"""The service's log: lines of text or of JSON, each with the id of the request in which it was written. Never a secret: neither
queries (they hold signatures) nor headers nor bodies are logged."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime
from typing import Literal

FIELDS = "fields"
"""What a record has as `extra={FIELDS: {…}}` is a field of the line in JSON, beside its text."""
NO_REQUEST = "-"
_PUBLIC_LINK = "/link/"

request_id: ContextVar[str] = ContextVar("request_id", default=NO_REQUEST)
"""Of the request that is being answered; work in threads knows it too."""


def configure(style: Literal["text", "json"]) -> None:
    """Log to stderr, from INFO on."""
    handler = logging.StreamHandler(sys.stderr)
    handler.addFilter(_add_request_id)
    text = logging.Formatter("%(asctime)s %(name)s %(request_id)s %(message)s")
    handler.setFormatter(JsonLines() if style == "json" else text)
    logging.basicConfig(level=logging.INFO, handlers=[handler])
    for chatty in ("alembic", "botocore", "httpx"):
        logging.getLogger(chatty).setLevel(logging.WARNING)


def loggable_path(path: str) -> str:
    """The path of a request, without the token of a public link, which is all that one needs to open it."""
    return f"{_PUBLIC_LINK}-" if path.startswith(_PUBLIC_LINK) else path


class JsonLines(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "request_id": getattr(record, "request_id", NO_REQUEST),
            "message": record.getMessage(),
            **getattr(record, FIELDS, {}),
        }
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def _add_request_id(record: logging.LogRecord) -> bool:
    record.request_id = request_id.get()
    return True
