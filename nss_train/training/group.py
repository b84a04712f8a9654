"""The process group that trains, started through Accelerate."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable
from pathlib import Path

from accelerate import notebook_launcher

from nss_train.contract import Report, Request, StageResult

StageFunction = Callable[..., StageResult]


def launch(function: StageFunction, folder: Path, request: Request, *, report: Report) -> StageResult:
    """Run a stage function as a group of one process, which is this one."""
    results: list[StageResult] = []

    def member() -> None:
        results.append(function(folder, request, report=report))

    # Accelerate prints what it launches; the events say it better.
    with contextlib.redirect_stdout(io.StringIO()):
        notebook_launcher(member, num_processes=1)
    return results[0]
