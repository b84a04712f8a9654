"""A preparation that gives away what it reads, in each way that a stage can."""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.errors import DataError, OutOfMemory, Problem

CELL = "Erika Mustermann 1964-08-12"


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Give away the table's only cell as the dataset's name says, and print it."""
    cell = (folder / "in" / str(request.table)).read_text().splitlines()[1]
    sys.stdout.write(f"{cell}\n")
    sys.stdout.flush()
    report(Event(action="prepare.started", message=f"preparing {cell}", fields={}))
    (folder / "out" / "config.json").write_text(request.config.model_dump_json())
    (folder / "out" / "train.arrow").write_text(cell)
    (folder / "out" / "unheard-of.json").write_text(cell)
    figures = {"tells": leaks, "quotes": quotes, "crashes": crashes, "memory": memory, "lost": lost}[
        str(request.config.guarantee.dataset)
    ](cell, report)
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def leaks(cell: str, report: Report) -> dict[str, object]:
    report(Event(action="prepare.read", message=cell, fields={"cell": cell}))
    report(Event(action="prepare.done", message=cell, fields={"units": cell, "columns": 1}))
    return {"columns": 1, "rows": cell, "longest": cell}


def quotes(cell: str, report: Report) -> dict[str, object]:
    raise DataError(f"Row 1 holds {cell}.", [Problem(field="row 1", value=cell, remedy=f"mend {cell}")])


def crashes(cell: str, report: Report) -> dict[str, object]:
    raise KeyError(cell)


def memory(cell: str, report: Report) -> dict[str, object]:
    raise OutOfMemory(f"no room for {cell}")


def lost(cell: str, report: Report) -> dict[str, object]:
    os.kill(os.getpid(), signal.SIGKILL)
    return {}
