"""The training library's programs, each in its own process: this one stays free of torch."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

from nss_train import errors
from nss_train.errors import NSSTrainError
from nss_train.extras import require, require_extras
from tasks.settings import child_environment

_APART = True
"""Whether children get a session of their own: Ctrl-C in a terminal then goes to this process alone, which
ends them without their tracebacks."""


def run(module: str, *arguments: str) -> int:
    """Run a part of the library in its own process, as this one has no torch; return its exit code."""
    return subprocess.run(
        [sys.executable, "-m", module, *arguments],
        env=child_environment(),
        check=False,
        start_new_session=_APART,
    ).returncode


def output(module: str, *arguments: str) -> str:
    """Run a part of the library and return its output; raise :class:`NSSTrainError` if it left no answer."""
    command = [sys.executable, "-m", module, *arguments]
    done = subprocess.run(
        command,
        env=child_environment(),
        check=False,
        capture_output=True,
        text=True,
        start_new_session=_APART,
    )
    if done.returncode != 0 and not done.stdout.startswith('{"error"'):
        raise NSSTrainError(f"{module} ended with exit code {done.returncode}.\n{done.stderr[-2000:]}")
    return done.stdout


def sample(folder: Path, base: Path, *, rows: int, seed: int | None) -> dict[str, Any]:
    options = [
        "--base",
        str(base),
        "--rows",
        str(rows),
        "--json",
        *(["--seed", str(seed)] if seed is not None else []),
    ]
    found: dict[str, Any] = json.loads(output("nss_train.artifacts", str(folder), *options))
    if "error" in found:
        raise errors.from_json(found["error"])
    return found


__all__ = ["output", "require", "require_extras", "run", "sample"]
