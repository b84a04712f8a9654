"""The process in which a stage runs: ``python -m nss_train.child STAGE FOLDER --events-fd N``.

It reads ``FOLDER/request.json``, writes events as JSON lines to the file descriptor, and ends with
``FOLDER/result.json`` and exit code 0, ``FOLDER/drained.json`` and exit code 75 (it was asked to stop),
or ``FOLDER/error.json`` and exit code 1.
"""

from __future__ import annotations

import argparse
import importlib
import json
import logging
import os
import tempfile
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from nss_train import errors
from nss_train.contract import Event, Report, Request, Stage, StageDrained, StageResult
from nss_train.errors import LimitExceeded, OutOfMemory, Problem
from nss_train.process import (
    default_signals,
    die_with_parent,
    keep_files_to_itself,
    leave,
    limit_cpu,
    limit_memory,
)

_PANIC = "PanicException"
"""Class name of a Rust library's panic: it is no ``Exception``, but need not end the process either."""
STARTED = "stage.started"
"""The first event of every stage: its process is up."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assignment:
    """The stage that a process runs, and the pipe for its events."""

    stage: Stage
    folder: Path
    module: str
    """Module of the stage functions."""
    events_fd: int


def main() -> NoReturn:
    parser = argparse.ArgumentParser(prog="python -m nss_train.child")
    parser.add_argument("stage", choices=[stage.value for stage in Stage])
    parser.add_argument("folder", type=Path)
    parser.add_argument("--events-fd", type=int, required=True)
    parser.add_argument("--parent", type=int, required=True, help="pid without which this process ends")
    parser.add_argument("--module", default="nss_train.stages", help="where the stage functions are")
    given = parser.parse_args()
    die_with_parent(given.parent)
    log_to_output()
    work(
        Assignment(
            stage=Stage(given.stage), folder=given.folder, module=given.module, events_fd=given.events_fd
        )
    )


def log_to_output() -> None:
    """Print what is logged: the output of a stage's process is its log. Imports may set up other logs."""
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")


def work(assignment: Assignment) -> NoReturn:
    """Run a stage in this process, which ends with it."""
    default_signals()
    keep_files_to_itself()
    leave(_outcome(assignment))


def _outcome(assignment: Assignment) -> int:
    """Run a stage, leave its document in its folder, and return the exit code."""
    folder, stage = assignment.folder, assignment.stage
    with os.fdopen(assignment.events_fd, "w", buffering=1, encoding="utf-8") as pipe:

        def report(event: Event) -> None:
            pipe.write(event.model_dump_json() + "\n")

        try:
            result = _run(stage, folder, assignment.module, report)
        except StageDrained as drained:
            _write(folder / "drained.json", {"step": drained.step})
            return os.EX_TEMPFAIL
        except BaseException as error:  # the boundary of the process: every end leaves a document
            if not isinstance(error, Exception) and type(error).__name__ != _PANIC:
                raise
            traceback.print_exc()
            _write(folder / "error.json", _describe(error, folder, stage))
            return 1
    _write(folder / "result.json", result.model_dump(mode="json"))
    return 0


def _run(stage: Stage, folder: Path, module: str, report: Report) -> StageResult:
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    if stage is Stage.PREPARE_DATA:
        _limit(request)
        # Readers unpack the table: a copy goes with the folder, even if this process is killed.
        tempfile.tempdir = str(folder)
    function = getattr(importlib.import_module(module), stage.value)
    report(Event(action=STARTED))
    result: StageResult = function(folder, request, report=report)
    return result


def _limit(request: Request) -> None:
    """Limit this process, which reads an untrusted table, to the memory and CPU time the operator allows."""
    if request.memory_bytes is not None:
        limit_memory(request.memory_bytes)
    if request.cpu_s is not None:
        limit_cpu(request.cpu_s)


def _describe(error: BaseException, folder: Path, stage: Stage) -> dict[str, Any]:
    found = errors.typed(error, folder)
    if stage is Stage.PREPARE_DATA and isinstance(found, OutOfMemory):
        found = _too_large()  # there is no micro-batch to halve, and elsewhere it is as large
    return errors.to_json(found) | {"traceback": traceback.format_exc()}


def _too_large() -> LimitExceeded:
    remedy = "more memory than a worker may use for it; make the table or what is asked of it smaller"
    problem = Problem(field="table", value=None, remedy=remedy)
    return LimitExceeded("The preparation of the table is too large.", [problem])


def _write(path: Path, document: dict[str, Any]) -> None:
    """Write a document whole or not at all. No sync: its only reader does not outlive this machine either."""
    aside = path.with_suffix(".part")
    aside.write_text(json.dumps(document), encoding="utf-8")
    aside.replace(path)


if __name__ == "__main__":
    main()
