"""Stage functions for tests of the supervisor: each behaves in one way that stages can."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.errors import DataError, Problem

STUBBORN = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Do what ``dataset_name`` says."""
    behaviour = {
        "works": works,
        "fails": fails,
        "crashes": crashes,
        "killed": killed,
        "hangs": hangs,
        "flood": flood,
        "talks": talks,
    }
    behaviour[request.dataset_name](folder, report)
    return StageResult(stage=Stage.PREPARE_DATA, figures={"pid": os.getpid()})


def works(folder: Path, report: Report) -> None:
    report(Event(action="test.step", message="one", fields={"step": 1}))


def fails(folder: Path, report: Report) -> None:
    raise DataError("The table cannot be read.", [Problem(field="a", value=1, remedy="do b")])


def crashes(folder: Path, report: Report) -> None:
    raise ZeroDivisionError("oops")


def killed(folder: Path, report: Report) -> None:
    sys.stdout.write("last words\n")
    sys.stdout.flush()
    os.kill(os.getpid(), signal.SIGKILL)


def hangs(folder: Path, report: Report) -> None:
    """Hang, with a grandchild that ignores SIGTERM, in a process group of its own."""
    child = subprocess.Popen([sys.executable, "-c", STUBBORN], process_group=0)
    report(Event(action="test.started", fields={"pids": [os.getpid(), child.pid]}))
    time.sleep(600)


def flood(folder: Path, report: Report) -> None:
    for number in range(20_000):
        report(Event(action="test.step", fields={"step": number}))


def talks(folder: Path, report: Report) -> None:
    sys.stdout.write("x" * 1_000_000 + "\nthe end\n")
