"""Mistakes between a table's file and its gradients, planted on purpose: each must be found."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np

from nss_train.config.guarantee import ColumnType, GuaranteeParameters, PublicColumn
from nss_train.contract import Request, TableLimits
from nss_train.data.outputs import write as write_outputs
from nss_train.data.private import reading
from nss_train.data.private.files import csv_lines
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.private.values import conversion
from nss_train.data.private.values.coding import AsRead
from nss_train.data.private.values.rules import Rule
from nss_train.errors import DataError, Problem
from nss_train.privacy import draw
from nss_train.privacy.audit.neighbours.corpus import corpus
from nss_train.privacy.audit.neighbours.invented import cheap_plans, write_model
from nss_train.privacy.audit.neighbours.replay import Replay, replay
from nss_train.privacy.schema import publication
from nss_train.privacy.schema.unit_count import draw_counts
from nss_train.privacy.units import FoundUnits, find_units
from nss_train.stages import preparation as stage
from nss_train.stages import private_preparation as preparation

logger = logging.getLogger("nss_train.planted")

Plant = Callable[[], AbstractContextManager[Any]]
BATCH = 4
"""Number of rows that decide on a type together, in faults about batches."""


class Fault(NamedTuple):
    """A mistake, and the comparisons that must see it."""

    plant: Plant
    seen_by: frozenset[str]


def _seen(plant: Plant, *checks: str) -> Fault:
    return Fault(plant, frozenset(checks))


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


def _marker(out: Path) -> None:
    (out / "marker.json").write_text(json.dumps({"train.arrow": _digest(out)}), encoding="utf-8")


def _sizes(out: Path) -> None:
    sizes = {path.name: path.stat().st_size for path in out.iterdir()}
    (out / "sizes.json").write_text(json.dumps(sizes), encoding="utf-8")


def _logged(out: Path) -> None:
    logger.info("wrote train.arrow (%s)", _digest(out)[:16])


@contextmanager
def count_in_the_figures() -> Iterator[None]:
    """Publish the number of examples among a job's figures."""
    honest = write_outputs

    def written(out: Path, prepared: Any, request: Any, **named: Any) -> dict[str, Any]:
        return honest(out, prepared, request, **named) | {"examples": len(prepared.train)}

    with mock.patch.object(stage, "write", written):
        yield


def types_of(rows: int | None) -> Plant:
    """Return a fault that types a column by the cells of its first rows: numbers, or else texts."""

    @contextmanager
    def plant() -> Iterator[None]:
        honest = conversion.rule_of

        def rule(name: str, read: AsRead, guarantee: GuaranteeParameters, limits: TableLimits | None) -> Rule:
            found, raw = honest(name, read, guarantee, limits), read.columns[name]
            if found.type is not ColumnType.ANY:
                return found
            cells = {raw.cells[code] for code in raw.codes[:rows]}
            is_number = all(_is_number(cell) for cell in cells if len(cell) > 1)
            type_ = ColumnType.NUMBER if is_number else ColumnType.STRING
            return Rule.of(type_, guarantee.columns.get(name, PublicColumn()), cell_chars=None)

        with mock.patch.object(conversion, "rule_of", rule):
            yield

    return plant


def _is_number(cell: bytes) -> bool:
    try:
        float(cell[1:])
    except ValueError:
        return False
    return True


@contextmanager
def types_per_batch() -> Iterator[None]:
    """Type a column batch by batch, by several rows together."""
    honest = conversion.convert

    def converted(read: AsRead, *given: Any) -> PrivateTable:
        starts = range(0, len(read.faults), BATCH)
        return _joined([honest(_part(read, slice(at, at + BATCH)), *given) for at in starts])

    with types_of(None)(), mock.patch.object(reading, "convert", converted):
        yield


def _part(read: AsRead, rows: slice) -> AsRead:
    columns = {name: Raw(codes=raw.codes[rows], cells=raw.cells) for name, raw in read.columns.items()}
    return replace(read, columns=columns, faults=read.faults[rows])


def _joined(parts: list[PrivateTable]) -> PrivateTable:
    first, *rest = parts
    for part in rest:
        columns = tuple(
            replace(
                one,
                codes=np.concatenate([one.codes, other.codes + len(one.values)]),
                values=[*one.values, *other.values],
                texts=[*one.texts, *other.texts],
            )
            for one, other in zip(first.columns, part.columns, strict=True)
        )
        raw = {
            name: Raw(
                codes=np.concatenate([one.codes, part.raw[name].codes + len(one.cells)]),
                cells=[*one.cells, *part.raw[name].cells],
            )
            for name, one in first.raw.items()
        }
        first = replace(first, columns=columns, raw=raw, null=np.concatenate([first.null, part.null]))
    return first


@contextmanager
def union_of_columns() -> Iterator[None]:
    """Take the union of all records' keys as the columns of JSON Lines."""
    honest = reading._read_json_lines  # noqa: SLF001 - faults are planted where they were made

    def read(path: Path, guarantee: GuaranteeParameters, *given: Any) -> AsRead:
        keys = dict.fromkeys(key for line in path.read_bytes().split(b"\n") for key in _keys(line))
        columns = {key: PublicColumn() for key in keys} | guarantee.columns
        return honest(path, guarantee.model_copy(update={"columns": columns}), *given)

    with mock.patch.object(reading, "_read_json_lines", read):
        yield


def _keys(line: bytes) -> list[str]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return []
    return list(found) if isinstance(found, dict) else []


@contextmanager
def quotes_across_lines() -> Iterator[None]:
    """Let a quote that is open at the end of a line include the next lines."""
    honest = csv_lines.records

    def records(path: Path, *, multiline: bool) -> Any:  # noqa: ARG001 - the fault is that it is ignored
        return honest(path, multiline=True)

    with mock.patch.object(csv_lines, "records", records):
        yield


@contextmanager
def trained_nulls() -> Iterator[None]:
    """Train on null records like any other."""

    def none(read: AsRead, _: Any) -> Any:
        return np.zeros(len(read.faults), dtype=bool)

    with mock.patch.object(conversion, "null_records", none):
        yield


def held_out_by(choose: Callable[[FoundUnits, float], Any]) -> Plant:
    """Return a fault that holds units out by ``choose`` instead of each unit's own coin."""

    @contextmanager
    def plant() -> Iterator[None]:
        def toss(units: FoundUnits, *_: Any, share: float) -> Any:
            return choose(units, share)

        with mock.patch.object(preparation, "toss", toss):
            yield

    return plant


def _permuted(units: FoundUnits, share: float) -> Any:
    held = np.zeros(len(units), dtype=bool)
    held[np.random.default_rng(1).permutation(len(units))[: int(share * len(units))]] = True
    return held


def _longest(units: FoundUnits, share: float) -> Any:
    held = np.zeros(len(units), dtype=bool)
    held[np.argsort(-units.groups.tokens, kind="stable")[: int(share * len(units))]] = True
    return held


@contextmanager
def distinct_values_as_n() -> Iterator[None]:
    """Use the exact number of distinct values of the unit's column as n."""
    counted = [0]

    def found(*given: Any) -> FoundUnits:
        units = find_units(*given)
        counted[0] = len(units) + units.idle
        return units

    with (
        mock.patch.object(preparation, "find_units", found),
        mock.patch.object(publication, "public_units", side_effect=lambda *_, **__: counted[0]),
    ):
        yield


@contextmanager
def records_in_the_count() -> Iterator[None]:
    """Add the noise for one unit to a count of records, of which a unit has several."""

    def counts(config: Any, products: Any, *, effective: int, idle: int) -> Any:
        return draw_counts(config, products, effective=3 * effective, idle=idle)

    with mock.patch.object(publication, "draw_counts", counts):
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


def replays_of_faults() -> dict[str, Replay]:
    """Return what distinguishes neighbours under each planted fault."""
    with tempfile.TemporaryDirectory() as root, cheap_plans():
        model = write_model(Path(root))
        return {name: _replay(fault, model) for name, fault in FAULTS.items()}


def _replay(fault: Fault, model: Path) -> Replay:
    with fault.plant():
        return replay(corpus(model), until=fault.seen_by)


FAULTS: Mapping[str, Fault] = {
    "digest as a name": _seen(digest_as_name, "published", "digests"),
    "digest in a marker": _seen(written_beside(_marker), "published", "digests"),
    "digest in a log": _seen(written_beside(_logged), "published", "digests"),
    "sizes of private files": _seen(written_beside(_sizes), "published"),
    "count of examples": _seen(count_in_the_figures, "published"),
    "types from the table": _seen(types_of(None), "units"),
    "types from the first rows": _seen(types_of(BATCH), "units"),
    "types per batch": _seen(types_per_batch, "units"),
    "union of JSON Lines' columns": _seen(union_of_columns, "published", "units"),
    "a quote across lines": _seen(quotes_across_lines, "units"),
    "trained nulls": _seen(trained_nulls, "units"),
    "permuted holdout": _seen(held_out_by(_permuted), "units"),
    "holdout by size": _seen(held_out_by(_longest), "units"),
    "distinct values as n": _seen(distinct_values_as_n, "published"),
    "records in a count of units": _seen(records_in_the_count, "releases"),
    "a second draw": _seen(own_draw, "published"),
    "refusal by a row": _seen(refused_by_a_row(shows_it=False), "published"),
    "a cell in an error": _seen(refused_by_a_row(shows_it=True), "published"),
}
