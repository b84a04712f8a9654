"""systemd's own opinion of the units. The programs they start are not installed here."""

from __future__ import annotations

import re
from pathlib import Path

from tool import DEPLOY, call

EXPOSURE = 20
"""Tenths of systemd's exposure level, from 0 to 100: what is left is the network and the GPU."""


def check(folder: Path) -> None:
    units = [_instance(unit, folder) for unit in sorted((DEPLOY / "systemd").glob("*.service"))]
    call("systemd-analyze", "verify", "--recursive-errors=no", *units)
    call("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", *units)


def _instance(unit: Path, folder: Path) -> Path:
    """A copy that starts a program which every machine has; of a template, its instance ``cuda``."""
    copy = folder / unit.name.replace("@.", "@cuda.")
    copy.write_text(re.sub(r"/opt/nss-train/bin/[a-z.-]+", "/bin/true", unit.read_text()))
    return copy
