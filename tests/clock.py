"""Processes whose clock is wrong."""

from __future__ import annotations

from pathlib import Path

import libfaketime


def moved(offset: str) -> dict[str, str]:
    """Return the environment of a process whose clock is off by this offset, such as ``+5m``."""
    library = Path(libfaketime.__file__).parent / "vendor/libfaketime/src/libfaketime.so.1"
    return {"LD_PRELOAD": str(library), "FAKETIME": offset, "DONT_FAKE_MONOTONIC": "1"}
