"""Parquet through Arrow: the schema gives a column's type, and each cell is written by that type alone."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pyarrow import types

from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.private.files.preconditions import unreadable
from nss_train.data.private.values.cells import MISSING, Kind, cell, float_cell, quoted
from nss_train.data.private.values.coding import AsRead, Coder
from nss_train.data.private.values.values import NULL, written
from nss_train.errors import Problem

BATCH_ROWS = 2**16

_OUT_OF_RANGE = "<value out of range"
"""Text that Arrow writes for a time outside the calendar's range."""


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """Open the file; :class:`~nss_train.errors.DataError`, without Arrow's message, if it is damaged."""
    try:
        with pq.ParquetFile(path) as file:
            yield file
    except (pa.ArrowException, OSError):
        raise unreadable(path.name, "it is damaged, or no Parquet file") from None  # Arrow may quote it


def schema_of(file: Any) -> tuple[list[str], dict[str, ColumnType]]:
    """Return the names of all columns, and the types of those that can be read."""
    schema = file.schema_arrow
    found = {name: type_of(kind) for name, kind in zip(schema.names, schema.types, strict=True)}
    return schema.names, {name: type_ for name, type_ in found.items() if type_ is not None}


def unreadable_columns(names: Sequence[str], known: Mapping[str, ColumnType]) -> Iterator[Problem]:
    """Yield a problem for each column whose type cannot be trained on."""
    for name in names:
        if name not in known:
            remedy = "binary columns cannot be trained on; leave it out"
            yield Problem(field=f"columns.{name}", value=None, remedy=remedy)


def type_of(kind: pa.DataType) -> ColumnType | None:
    """Return the column type for an Arrow type; ``None`` if it cannot be trained on."""
    kind = _plain(kind)
    if types.is_null(kind):
        return ColumnType.ANY
    if types.is_nested(kind):
        return ColumnType.JSON if all(type_of(part) for part in _parts(kind)) else None
    return next((type_ for type_, belongs in _TYPES if belongs(kind)), None)


def read(file: Any, names: Sequence[str], kinds: Mapping[str, ColumnType]) -> AsRead:
    """Return the cells of the named columns."""
    coders = {name: Coder() for name in names}
    rows = 0
    for batch in file.iter_batches(BATCH_ROWS, columns=list(names), use_pandas_metadata=False):
        rows += len(batch)
        for name, coder in coders.items():
            _add(coder, _decoded(batch.column(name)))
    return AsRead(
        columns={name: coder.raw() for name, coder in coders.items()},
        types={name: kinds[name] for name in names},
        faults=np.zeros(rows, dtype=np.int8),
    )


def _add(coder: Coder, column: pa.Array) -> None:
    if types.is_null(column.type):
        coder.add([MISSING] * len(column))
        return
    if types.is_nested(column.type):
        coder.add(_cells(column))
        return
    if types.is_floating(column.type):  # compared by their bits: as numbers, 0.0 and -0.0 are equal
        bits, codes = np.unique(_doubles(column).view(np.int64), return_inverse=True)
        coder.add(_cells(pa.array(bits.view(np.float64))), codes.astype(np.int32))
        return
    encoded = column.dictionary_encode(null_encoding="encode")
    coder.add(_cells(encoded.dictionary), encoded.indices.to_numpy().astype(np.int32))


def _doubles(column: pa.Array) -> Any:
    return column.cast(pa.float64()).to_numpy(zero_copy_only=False)


def _cells(column: pa.Array) -> list[bytes]:
    """Return each element as the bytes of a cell."""
    if types.is_floating(column.type):
        return [float_cell(v) if math.isfinite(v) else MISSING for v in _doubles(column).tolist()]
    if types.is_string(column.type) or types.is_large_string(column.type):
        head = Kind.STRING.encode()
        texts = column.cast(pa.large_binary()).to_pylist()  # not all of them need be UTF-8
        return [MISSING if text is None else head + text for text in texts]
    kind = next(kind for kind, belongs in _KINDS if belongs(column.type))
    return [MISSING if text is None else cell(kind, text) for text in texts_of(column)]


def texts_of(column: pa.Array) -> list[str | None]:
    """Return each element as text: nested ones as compact JSON, times in ISO 8601; ``None`` for null."""
    column = _decoded(column)
    if types.is_null(column.type):
        return [None] * len(column)
    for belongs, write in _WRITERS:
        if belongs(column.type):
            return write(column)
    return [None if value is None else str(value) for value in column.cast(pa.string()).to_pylist()]


def _json_of(column: pa.Array) -> list[str]:
    """Return each element as JSON."""
    quote = _is_text(column.type) or _is_moment(column.type)
    return [NULL if text is None else quoted(text) if quote else text for text in texts_of(column)]


def _floats(column: pa.Array) -> list[str | None]:
    return [written(v) if math.isfinite(v) else None for v in _doubles(column).tolist()]


def _strings(column: pa.Array) -> list[str | None]:
    texts = column.cast(pa.large_binary()).to_pylist()
    return [None if text is None else text.decode("utf-8", "surrogateescape") for text in texts]


def _decimals(column: pa.Array) -> list[str | None]:
    return [None if value is None else format(value, "f") for value in column.to_pylist()]


def _moments(column: pa.Array) -> list[str | None]:
    kind = column.type
    if types.is_timestamp(kind) and kind.tz is not None:
        column = column.cast(pa.timestamp(kind.unit, tz="UTC"))
    texts = column.cast(pa.string()).to_pylist()
    return [None if text is None or _OUT_OF_RANGE in text else text.replace(" ", "T") for text in texts]


def _lists(column: pa.Array) -> list[str | None]:
    return _spans(column, _json_of(_own(column, column.values)), "[{}]")


def _maps(column: pa.Array) -> list[str | None]:
    keys = [quoted(text or NULL) for text in texts_of(_own(column, column.keys))]
    values = _json_of(_own(column, column.items))
    return _spans(column, [f"{key}:{value}" for key, value in zip(keys, values, strict=True)], "{{{}}}")


def _own(column: pa.Array, parts: pa.Array) -> pa.Array:
    """Return the elements of a column's lists; a slice shares the elements of a longer column."""
    first, last = column.offsets[0].as_py(), column.offsets[-1].as_py()
    return parts.slice(first, last - first)


def _spans(column: pa.Array, parts: list[str], form: str) -> list[str | None]:
    offsets = (column.offsets.to_numpy() - column.offsets[0].as_py()).tolist()
    spans = zip(column.is_valid().to_pylist(), offsets[:-1], offsets[1:], strict=True)
    return [form.format(",".join(parts[start:stop])) if is_valid else None for is_valid, start, stop in spans]


def _structs(column: pa.Array) -> list[str | None]:
    names = [quoted(column.type.field(i).name) + ":" for i in range(column.type.num_fields)]
    fields = [_json_of(field) for field in column.flatten()]
    rows = zip(*fields, strict=True) if fields else [()] * len(column)
    return [
        "{" + ",".join(map("".join, zip(names, row, strict=True))) + "}" if is_valid else None
        for is_valid, row in zip(column.is_valid().to_pylist(), rows, strict=True)
    ]


def _decoded(column: pa.Array) -> pa.Array:
    """Return dictionaries as their values, extensions as their storage, and lists of all kinds as one."""
    kind = column.type
    if isinstance(column, pa.ExtensionArray):
        return _decoded(column.storage)
    if types.is_dictionary(kind):
        return _decoded(column.dictionary_decode())
    return column if _plain(kind) == kind else column.cast(_plain(kind))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Return the type that represents all types of its kind."""
    if isinstance(kind, pa.BaseExtensionType):
        return _plain(kind.storage_type)
    if types.is_dictionary(kind):
        return _plain(kind.value_type)
    if types.is_string_view(kind):
        return pa.large_string()
    if types.is_duration(kind):
        return pa.int64()
    if types.is_list_view(kind) or types.is_large_list_view(kind) or types.is_fixed_size_list(kind):
        return pa.large_list(kind.value_field)
    return kind


def _parts(kind: pa.DataType) -> list[pa.DataType]:
    if types.is_map(kind):
        return [kind.key_type, kind.item_type]
    return [kind.field(index).type for index in range(kind.num_fields)]


def _is_list(kind: pa.DataType) -> bool:
    return bool(types.is_list(kind) or types.is_large_list(kind))


def _is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(_plain(kind)) or types.is_large_string(_plain(kind)))


def _is_moment(kind: pa.DataType) -> bool:
    return bool(types.is_temporal(_plain(kind)))


_TYPES = (
    (ColumnType.INTEGER, types.is_integer),
    (ColumnType.NUMBER, types.is_floating),
    (ColumnType.NUMBER, types.is_decimal),
    (ColumnType.BOOLEAN, types.is_boolean),
    (ColumnType.STRING, _is_text),
    (ColumnType.DATETIME, _is_moment),
)
_KINDS = (
    (Kind.NUMBER, types.is_integer),
    (Kind.DECIMAL, types.is_decimal),
    (Kind.BOOLEAN, types.is_boolean),
    (Kind.MOMENT, _is_moment),
    (Kind.NESTED, types.is_nested),
)
_WRITERS: Sequence[tuple[Callable[[pa.DataType], bool], Callable[[pa.Array], list[str | None]]]] = (
    (_is_list, _lists),
    (types.is_map, _maps),
    (types.is_struct, _structs),
    (types.is_floating, _floats),
    (types.is_decimal, _decimals),
    (_is_text, _strings),
    (_is_moment, _moments),
)
