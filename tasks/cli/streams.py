"""The standard streams of a command: always there, and UTF-8 whatever the locale says."""

from __future__ import annotations

import io
import os
import sys


def prepare() -> None:
    """Make both streams usable: a shell may have closed them, and cp1252 or ASCII cannot hold every table."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: SIM115, PTH123 - for good
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding="utf-8", errors="backslashreplace")


def discard() -> None:
    """Drop what the standard output did not take, as Python would try it again at the end."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, sys.stdout.fileno())
    os.close(nowhere)
