"""Tables of every format with records of every sort, and edits of one record."""

from __future__ import annotations

import datetime
import decimal
import io
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from hypothesis import strategies as st

from nss_train.config.sections.guarantee import ColumnType, GuaranteeParameters
from nss_train.data.private.reading import read_private_frame, read_private_table
from nss_train.data.private.table import PrivateTable

NAMES = ("age", "note", "städte")

Read = Callable[[Sequence[Any]], PrivateTable]
"""Function that reads a table of these records, which a file or a frame holds in this order."""


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The edit of one record."""

    kind: str
    place: int
    records: tuple[Any, ...]
    """Records in this place afterwards."""
    taken: int
    """Number of records in this place before."""

    def of(self, records: Sequence[Any]) -> list[Any]:
        return [*records[: self.place], *self.records, *records[self.place + self.taken :]]


def said(table: PrivateTable, place: int) -> tuple[Any, ...]:
    """Return all that a place says: whether it counts, its texts, its values' types and its raw cells."""
    texts = [column.texts[column.codes[place]] for column in table.columns]
    values = [repr(column.values[column.codes[place]]) for column in table.columns]
    raw = [cells.cells[cells.codes[place]] for cells in table.raw.values()]
    return bool(table.null[place]), texts, values, raw


def moved(before: PrivateTable, after: PrivateTable, edit: Edit) -> list[tuple[Any, Any]]:
    """Return what other records hold before and after, where it changed; the sizes if these are odd."""
    grown = len(edit.records) - edit.taken
    if len(after) != len(before) + grown:
        return [(len(before), len(after))]
    others = [(n, n if n < edit.place else n + grown) for n in range(len(before))]
    pairs = [
        (said(before, old), said(after, new))
        for old, new in others
        if not edit.place <= old < edit.place + edit.taken
    ]
    return [(old, new) for old, new in pairs if old != new]


def reader(folder: Path, suffix: str, guarantee: dict[str, Any], schema: pa.Schema | None = None) -> Read:
    """Return a reader of records: lines of a text file, rows of a schema, or rows of a frame."""
    parameters = GuaranteeParameters.model_validate(guarantee)

    def read(records: Sequence[Any]) -> PrivateTable:
        if suffix == "frame":
            return read_private_frame(pd.DataFrame(list(records), columns=list(NAMES)), parameters)
        path = folder / f"table{suffix}"
        if schema is not None:
            pq.write_table(parquet(records, schema), path, row_group_size=3)
        else:
            header = [",".join(NAMES).encode()] if suffix == ".csv" else []
            path.write_bytes(b"".join(line + b"\n" for line in [*header, *records]))
        return read_private_table(path, parameters)

    return read


def parquet(records: Sequence[Any], schema: pa.Schema) -> pa.Table:
    """Return a table of these rows; a text may be bytes that are no text."""
    columns = []
    for number, kind in enumerate(schema.types):
        cells = [record[number] for record in records]
        if kind == pa.string():
            columns.append(pa.array([_bytes(cell) for cell in cells], type=pa.binary()).view(pa.string()))
        elif pa.types.is_dictionary(kind):
            columns.append(pa.array(cells, type=kind.value_type).dictionary_encode())
        elif pa.types.is_temporal(kind):
            width = pa.int32() if kind.bit_width == 32 else pa.int64()
            columns.append(pa.array(cells, type=width).view(kind))
        else:
            columns.append(pa.array(cells, type=kind))
    return pa.Table.from_arrays(columns, schema=schema)


def _bytes(cell: Any) -> Any:
    return cell.encode() if isinstance(cell, str) else cell


# Records

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NUMBERS = st.one_of(
    st.integers(-(10**4), 10**4),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False, allow_infinity=False),
    st.floats(-1e3, 1e3).map(lambda number: round(number, 2)),
)
ODD_FIELDS = ["", "NA", "null", "00501", "33.5", "unknown", "true", "False", "2024-01-31", "63.0", "-0"]
ODD_FIELDS += ["1e999", " 7", "+7", "1_000", "[1]", "nan", "inf", "１２", "9" * 400]
ODD_FIELDS += ["a\rb", "\x0b", "\x85", "\u2028", "\ufeff"]
FIELDS = st.one_of(st.sampled_from(ODD_FIELDS), NUMBERS.map(str), TEXTS)
ODD_LINES = [
    b'a"b,1,2',
    b'"open,1,2',
    b'1,"open',
    b'x",y",z',
    b'"a"b,c,d',
    b"1,2,3,4",
    b"1",
    b"\xff\xfe,1,2",
    b"1,\x00,2",
    b",,",
    b"",
    b" , \t,",
    b"\r",
    b"1,2,3\r",
    b"x" * 10**5 + b",1,2",
    b'"' * 99,
]


def csv_line(fields: Sequence[str], *, multiline: bool = False) -> bytes:
    """Return a record as a correct writer writes it; line breaks in cells only where these are allowed."""
    plain = fields if multiline else [field.replace("\n", " ") for field in fields]
    return ",".join(_quoted(field) for field in plain).encode()


def _quoted(field: str) -> str:
    return '"' + field.replace('"', '""') + '"' if set(field) & set(',"\r\n') else field


CSV_LINES = st.one_of(
    st.lists(FIELDS, min_size=3, max_size=3).map(csv_line),
    st.lists(FIELDS, min_size=3, max_size=3).map(csv_line),
    st.sampled_from(ODD_LINES),
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
)
MULTILINE = st.lists(FIELDS, min_size=3, max_size=3).map(lambda fields: csv_line(fields, multiline=True))

JSON_VALUES = st.recursive(
    st.one_of(st.none(), st.booleans(), NUMBERS, TEXTS, st.sampled_from(ODD_FIELDS)),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
ODD_JSON = [
    b"",
    b"{}",
    b"null",
    b"[null]",
    b'{"age": [null]}',
    b'{"age": 33.5',
    b'{"age": 00501}',
    b'{"age": "00501"}',
    b'{"age": NaN, "note": -Infinity}',
    b'{"new": 1}',
    b'{"age": 1, "age": "two"}',
    b'{"age": "\xff"}',
    b'{"age": "\x00"}',
    b'{"age": "\\ud800", "note": "x"}',
    b'{"age": ' + b"[" * 500 + b"]" * 500 + b"}",
    b'{"age": ' + b"[" * 12 + b"]" * 12 + b"}",
    b'{"note": "' + b"x" * 10**5 + b'"}',
    b"5",
    b'"text"',
    b"\xef\xbb\xbf{}",
    b'{"age": 1}{"age": 2}',
]


def json_line(record: dict[str, Any]) -> bytes:
    return json.dumps(record, ensure_ascii=False).encode()


JSON_LINES = st.one_of(
    st.dictionaries(st.sampled_from([*NAMES, "new"]), JSON_VALUES, max_size=4).map(json_line),
    st.dictionaries(st.sampled_from(NAMES), JSON_VALUES, min_size=2, max_size=3).map(json_line),
    st.sampled_from(ODD_JSON),
    st.binary(max_size=20).map(lambda line: line.replace(b"\n", b"")),
)

WIDE = st.integers(-(2**62), 2**62)
PARQUET: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int64(): st.integers(-(2**63), 2**63 - 1),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.int8(): st.integers(-128, 127),
    pa.float64(): st.floats(),
    pa.float32(): st.floats(width=32),
    pa.bool_(): st.booleans(),
    pa.string(): st.one_of(TEXTS, st.sampled_from([*ODD_FIELDS, b"\xff\xfe", "x" * 10**5])),
    pa.dictionary(pa.int32(), pa.int64()): st.integers(0, 120),
    pa.decimal128(10, 2): st.decimals(-(10**7), 10**7, places=2),
    pa.date32(): st.integers(-(2**31), 2**31 - 1),
    pa.timestamp("us"): WIDE,
    pa.timestamp("ns", tz="Europe/Berlin"): WIDE,
    pa.time64("us"): st.integers(0, 86_400_000_000 - 1),
    pa.list_(pa.int64()): st.lists(st.none() | WIDE, max_size=3),
    pa.list_(pa.list_(pa.float64())): st.lists(st.none() | st.lists(st.floats()), max_size=2),
    pa.struct({"x": pa.int64(), "y": pa.string()}): st.fixed_dictionaries(
        {"x": st.none() | WIDE, "y": st.none() | TEXTS}
    ),
    pa.map_(pa.string(), pa.float64()): st.lists(st.tuples(TEXTS, st.none() | st.floats()), max_size=3),
}

MOMENTS = st.datetimes(datetime.datetime(1, 1, 1), datetime.datetime(9999, 12, 31))  # noqa: DTZ001
FRAME_CELLS = [
    st.integers(-(2**62), 2**62) | st.just(float("nan")),
    st.booleans(),
    st.integers(0, 9),
    st.floats(),
    TEXTS,
    MOMENTS,
    st.decimals(-100, 100, places=2),
    st.lists(st.none() | st.integers(), max_size=2),
]
ODD_CELLS = [None, "unknown", 33.5, True, "00501", [None], {"a": None}, float("inf"), pd.NaT, pd.NA]
ODD_CELLS += [2**53 + 1, decimal.Decimal("1.0"), decimal.Decimal("NaN"), b"bytes", io, "\ud800"]

# Declarations

_BOUNDS = st.fixed_dictionaries({"minimum": st.just(-10), "maximum": st.just(50.5)})
_CATEGORIES = st.fixed_dictionaries(
    {"categories": st.just(["unknown", "true", "7"])}, optional={"other": st.just("elsewhere")}
)
_NULLABLE = st.fixed_dictionaries({}, optional={"nullable": st.just(False)})
_TYPES: dict[str, st.SearchStrategy[dict[str, Any]]] = {
    "integer": st.just({}) | _BOUNDS,
    "number": st.just({}) | _BOUNDS,
    "boolean": st.just({}),
    "string": st.just({}) | _CATEGORIES,
    "datetime": st.just({}) | st.just({"format": "%Y-%m-%d"}),
    "json": st.just({}),
    "any": st.just({}) | _BOUNDS | _CATEGORIES,
}
DECLARED = st.sampled_from(list(ColumnType)).flatmap(
    lambda type_: st.builds(
        lambda more, nullable: {"type": type_.value, **more, **nullable}, _TYPES[type_.value], _NULLABLE
    )
)
