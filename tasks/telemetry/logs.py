"""Log lines for people or, as JSON, for machines; each names the job, stage and attempt it is about.

Records come from the standard library's loggers, Celery's too: structlog would replace only :func:`about`.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

_about: ContextVar[Mapping[str, Any] | None] = ContextVar("about", default=None)


@contextmanager
def about(**fields: object) -> Iterator[None]:
    """Add these fields to every record that is logged inside the block."""
    token = _about.set({**(_about.get() or {}), **fields})
    try:
        yield
    finally:
        _about.reset(token)


def configure(log_format: Literal["text", "json"]) -> None:
    """Send this process's log to stderr in the given form."""
    handler = logging.StreamHandler()
    handler.addFilter(_add_fields)
    if log_format == "json":
        handler.setFormatter(JsonFormatter("%(asctime)s %(levelname)s %(name)s %(message)s"))
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logging.basicConfig(level=logging.INFO, handlers=[handler], force=True)


def _add_fields(record: logging.LogRecord) -> bool:
    for name, value in (_about.get() or {}).items():
        if not hasattr(record, name):
            setattr(record, name, value)
    return True
