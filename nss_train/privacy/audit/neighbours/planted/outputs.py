"""Mistakes in what a job publishes, planted on purpose."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

from nss_train.contract import Request
from nss_train.data.outputs import write as write_outputs
from nss_train.data.private import reading
from nss_train.data.private.table import PrivateTable
from nss_train.data.private.values import conversion
from nss_train.data.private.values.coding import AsRead
from nss_train.errors import DataError, Problem
from nss_train.privacy import draw
from nss_train.privacy.audit.neighbours.planted.fault import Plant
from nss_train.stages import preparation as stage

logger = logging.getLogger("nss_train.planted")


@contextmanager
def digest_as_name() -> Iterator[None]:
    """Name an unnamed table's budget by the table's digest."""
    honest = stage._prepare_private  # noqa: SLF001 - faults are planted where they were made

    def prepared(folder: Path, request: Request, *given: Any) -> Any:
        table = (folder / "in" / str(request.table)).read_bytes()
        name = hashlib.sha256(table).hexdigest()[:32]
        return honest(folder, request.model_copy(update={"budget_name": name}), *given)

    with mock.patch.object(stage, "_prepare_private", prepared):
        yield


def written_beside(write: Callable[[Path], None]) -> Plant:
    """Return a fault that publishes something more when the results are written."""

    @contextmanager
    def plant() -> Iterator[None]:
        honest = write_outputs

        def written(out: Path, *given: Any, **named: Any) -> Any:
            found = honest(out, *given, **named)
            write(out)
            return found

        with mock.patch.object(stage, "write", written):
            yield

    return plant


def _digest(out: Path) -> str:
    return hashlib.sha256((out / "train.arrow").read_bytes()).hexdigest()


def marker(out: Path) -> None:
    (out / "marker.json").write_text(json.dumps({"train.arrow": _digest(out)}), encoding="utf-8")


def sizes(out: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in out.iterdir()}
    (out / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")


def logged(out: Path) -> None:
    logger.info("wrote train.arrow (%s)", _digest(out)[:16])


@contextmanager
def count_in_the_figures() -> Iterator[None]:
    """Publish the number of examples among a job's figures."""
    honest = write_outputs

    def written(out: Path, prepared: Any, request: Any, **named: Any) -> dict[str, Any]:
        return honest(out, prepared, request, **named) | {"examples": len(prepared.train)}

    with mock.patch.object(stage, "write", written):
        yield


@contextmanager
def own_draw() -> Iterator[None]:
    """Let an attempt that follows a lost one use a new draw."""

    def keep(keeper: Any, drawn: Any, *, price: Any) -> Any:  # noqa: ARG001 - the fault is that nothing is kept
        return drawn

    with mock.patch.object(draw.SupervisorsDraw, "keep", keep):
        yield


def refused_by_a_row(*, shows_it: bool) -> Plant:
    """Return a fault that ends the job at a bad record, by an error with a cell's text or without."""

    @contextmanager
    def plant() -> Iterator[None]:
        honest = conversion.convert

        def converted(read: AsRead, *given: Any) -> PrivateTable:
            if shows_it:
                cells = [cell for raw in read.columns.values() for cell in raw.cells]
                raise DataError("The table is refused.", [_about(repr(max(cells, key=len, default=b"")))])
            if read.faults.any():
                raise DataError("The table has records that are none.", [_about("a line")])
            return honest(read, *given)

        with mock.patch.object(reading, "convert", converted):
            yield

    return plant


def _about(what: str) -> Problem:
    return Problem(field="table", value=what, remedy="mend the table")
