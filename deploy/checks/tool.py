"""Calls of the validators."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

DEPLOY = Path(__file__).parents[1]
TIMEOUT_S = 120


class CheckFailed(Exception):
    """A validator failed; the message is its output."""


def call(program: str, *arguments: str | Path, cwd: Path | None = None) -> str:
    """Return the output of a validator, which is beside this interpreter or on the PATH."""
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *map(str, arguments)],
        capture_output=True,
        check=False,
        cwd=cwd,
        env=os.environ | {"PATH": path},
        text=True,
        timeout=TIMEOUT_S,
    )
    if done.returncode != 0:
        raise CheckFailed(f"{program} ended with {done.returncode}\n{done.stdout}{done.stderr}")
    return done.stdout
