"""A table file as its records, each of which can be changed without reading the others."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, Self, cast

import pyarrow as pa
import pyarrow.parquet as pq

from nss_train.privacy.audit.neighbours import odd

Record = Any
"""A line of a text file as bytes, or a row as an Arrow table of one."""


class TableFile(Protocol):
    """A table from which neighbours can be made."""

    @property
    def suffix(self) -> str:
        """Return the suffix of the file's name."""

    @property
    def columns(self) -> tuple[str, ...]:
        """Return the column names; for JSON Lines, those of the first record."""

    @property
    def records(self) -> Sequence[Record]:
        """Return all records, in order."""

    @property
    def null(self) -> Record:
        """Return a record without effect."""

    def cell(self, place: int, column: str) -> str:
        """Return a cell as text, for comparing two cells."""

    def odd(self, place: int, column: str) -> Mapping[str, Record]:
        """Return odd records by name: the one at a place with another cell in a column, or an invalid one."""

    def with_records(self, records: Sequence[Record]) -> Self:
        """Return the same table with other records."""

    def write(self, path: Path) -> None:
        """Write the file."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Csv:
    """A CSV file, line by line."""

    header: bytes
    records: tuple[bytes, ...]
    suffix: str = ".csv"

    @classmethod
    def read(cls, path: Path, *, multiline: bool = False) -> Self:
        """Split a file into its lines or, where cells may hold line breaks, into its records."""
        lines = path.read_bytes().removesuffix(b"\n").split(b"\n")
        header, *records = _joined(lines) if multiline else lines
        return cls(header=header, records=tuple(records))

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(_fields(self.header.removeprefix(b"\xef\xbb\xbf").rstrip(b"\r")))

    @property
    def null(self) -> bytes:
        return b"," * (len(self.columns) - 1)

    def cell(self, place: int, column: str) -> str:
        fields = _fields(self.records[place].rstrip(b"\r"))
        at = self.columns.index(column)
        return fields[at] if at < len(fields) else ""

    def odd(self, place: int, column: str) -> Mapping[str, bytes]:
        fields = [*_fields(self.records[place].rstrip(b"\r")), *self.columns][: len(self.columns)]
        at, record = self.columns.index(column), self.records[place]

        def with_cell(cell: bytes) -> bytes:
            cells = [quoted(field) for field in fields]
            cells[at] = cell
            return b",".join(cells)

        cells = {name: with_cell(quoted(text)) for name, text in odd.TEXTS.items()}
        raw = {name: with_cell(cell) for name, cell in odd.RAW_CELLS.items()}
        records = {"surplus field": record + b",surplus", "missing fields": record.split(b",")[0]}
        return {**cells, **raw, **records, "duplicate": record, "all null": self.null}

    def with_records(self, records: Sequence[bytes]) -> Self:
        return replace(self, records=tuple(records))

    def write(self, path: Path) -> None:
        path.write_bytes(b"".join(line + b"\n" for line in (self.header, *self.records)))


@dataclass(frozen=True, kw_only=True, slots=True)
class JsonLines:
    """A JSON Lines file, line by line."""

    records: tuple[bytes, ...]
    suffix: str = ".jsonl"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Split a file into its lines."""
        return cls(records=tuple(path.read_bytes().removesuffix(b"\n").split(b"\n")))

    @property
    def columns(self) -> tuple[str, ...]:
        return next((tuple(found) for found in map(_object, self.records) if found), ())

    @property
    def null(self) -> bytes:
        return b"{}"

    def cell(self, place: int, column: str) -> str:
        return json.dumps(_object(self.records[place]).get(column))

    def odd(self, place: int, column: str) -> Mapping[str, bytes]:
        given, record = _object(self.records[place]), self.records[place]
        cells = {name: _line(given | {column: cell}) for name, cell in {**odd.TEXTS, **odd.VALUES}.items()}
        unquoted = _line(given | {column: "CELL"})
        raw = {name: unquoted.replace(b'"CELL"', cell) for name, cell in odd.RAW_JSON.items()}
        records = {
            "new key": _line(given | {"a new key": 1}),
            "byte order mark": b"\xef\xbb\xbf" + record,
            "missing key": _line({name: cell for name, cell in given.items() if name != column}),
            "key twice": record.removesuffix(b"}") + b', "' + column.encode() + b'": 7}',
        }
        return {**cells, **raw, **records, **odd.LINES, "duplicate": record, "all null": self.null}

    def with_records(self, records: Sequence[bytes]) -> Self:
        return replace(self, records=tuple(records))

    def write(self, path: Path) -> None:
        path.write_bytes(b"".join(line + b"\n" for line in self.records))


@dataclass(frozen=True, kw_only=True, slots=True)
class Parquet:
    """A Parquet file, row by row; a row cannot have another type than its file declares."""

    schema: pa.Schema
    records: tuple[pa.Table, ...]
    suffix: str = ".parquet"

    @classmethod
    def read(cls, path: Path) -> Self:
        """Split a file into its rows."""
        return cls.of(pq.read_table(path))

    @classmethod
    def of(cls, table: pa.Table) -> Self:
        """Split a table into its rows."""
        rows = tuple(table.slice(row, 1) for row in range(len(table)))
        return cls(schema=table.schema, records=rows)

    @property
    def columns(self) -> tuple[str, ...]:
        return tuple(self.schema.names)

    @property
    def null(self) -> pa.Table:
        return pa.table([pa.nulls(1, field.type) for field in self.schema], schema=self.schema)

    def cell(self, place: int, column: str) -> str:
        found = self.records[place][column][0]
        # Python's dates end in the years 1 and 9999, Arrow's do not.
        return repr(found.value if pa.types.is_temporal(found.type) else found.as_py())

    def odd(self, place: int, column: str) -> Mapping[str, pa.Table]:
        record, at = self.records[place], self.schema.names.index(column)
        kind = self.schema.field(at).type
        cells = {
            name: record.set_column(at, self.schema.field(at), cell) for name, cell in odd.arrow_cells(kind)
        }
        return {**cells, "duplicate": record, "all null": self.null}

    def with_records(self, records: Sequence[pa.Table]) -> Self:
        return replace(self, records=tuple(records))

    def write(self, path: Path) -> None:
        table = pa.concat_tables(self.records) if self.records else self.schema.empty_table()
        pq.write_table(table, path)


def read_table_file(path: Path, *, multiline: bool = False) -> TableFile:
    """Read the records of a table file, by its suffix."""
    if path.suffix.lower() == ".csv":
        return Csv.read(path, multiline=multiline)
    return Parquet.read(path) if path.suffix.lower() == ".parquet" else JsonLines.read(path)


def _joined(lines: Sequence[bytes]) -> list[bytes]:
    """Join lines into records: a quote that is open at the end of a line includes the next one (RFC 4180)."""
    found: list[bytes] = []
    for line in lines:
        if found and found[-1].count(b'"') % 2:
            found[-1] += b"\n" + line
        else:
            found.append(line)
    return found


def _fields(line: bytes) -> list[str]:
    """Return the cells of a CSV line, as well as they can be separated."""
    try:
        return next(csv.reader([line.decode(errors="replace")]), [])
    except csv.Error:
        return [part.decode(errors="replace") for part in line.split(b",")]


def quoted(text: str) -> bytes:
    """Return a cell as a correct CSV writer writes it."""
    written = io.StringIO()
    csv.writer(written, lineterminator="").writerow([text, ""])
    return written.getvalue().removesuffix(",").encode(errors="surrogatepass")


def _object(line: bytes) -> dict[str, Any]:
    try:
        found = json.loads(line)
    except (ValueError, RecursionError):
        return {}
    return cast("dict[str, Any]", found) if isinstance(found, dict) else {}


def _line(record: Mapping[str, object]) -> bytes:
    return json.dumps(record).encode()
