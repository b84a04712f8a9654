"""Checks of a machine's processes: the units by systemd, the Procfile by honcho."""

from __future__ import annotations

import re
from pathlib import Path

from honcho.environ import parse_procfile
from tool import DEPLOY, CheckFailed, call

EXPOSURE = 20
"""Maximum of systemd's exposure level in tenths, from 0 to 100: what is left is the network and the GPU."""


def check_procfile(_: Path) -> None:
    """Count the lines that honcho understands: it skips the others without an error."""
    text = (DEPLOY / "Procfile").read_text()
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    understood = parse_procfile(text).processes
    if len(understood) != len(lines):
        raise CheckFailed(f"of {len(lines)} lines only {', '.join(understood) or 'none'} is a process")


def check(folder: Path) -> None:
    units = [_instance(unit, folder) for unit in sorted((DEPLOY / "systemd").glob("*.service"))]
    call("systemd-analyze", "verify", "--recursive-errors=no", *units)
    call("systemd-analyze", "security", "--offline=true", f"--threshold={EXPOSURE}", *units)


def _instance(unit: Path, folder: Path) -> Path:
    """Copy a unit with a program that every machine has; a template becomes its instance ``cuda``."""
    copy = folder / unit.name.replace("@.", "@cuda.")
    copy.write_text(re.sub(r"/opt/nss-train/bin/[a-z.-]+", "/bin/true", unit.read_text()))
    return copy
