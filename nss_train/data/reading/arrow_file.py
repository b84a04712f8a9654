"""Arrow and Feather files: measured before they are decompressed, then read."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from pathlib import Path
from struct import error as struct_error
from struct import unpack_from
from typing import Any

import pandas as pd
import pyarrow as pa
from pyarrow import ipc

from nss_train.data.columns import check_known
from nss_train.data.reading.faults import DAMAGED, unreadable
from nss_train.data.sizes import BYTES_PER_CELL, Size
from nss_train.data.types import check_types

_MAGIC = b"ARROW1\0\0"
"""Magic bytes of the file format; the messages of a stream follow."""
_PACKED_LENGTH = 8
"""Bytes before a compressed buffer that give its decompressed length; -1: it is not compressed."""


def read_arrow(path: Path, *, dropped: Collection[str] = ()) -> pd.DataFrame:
    """Return the frame of an Arrow or Feather file, without the dropped columns."""
    try:
        with pa.memory_map(str(path)) as file:
            table = ipc.open_file(file).read_all()
    except DAMAGED as error:
        raise _no_arrow(path, error) from error
    check_known(dropped, table.column_names)
    table = table.drop_columns([name for name in table.column_names if name in dropped])
    check_types(table.schema)
    try:
        frame: pd.DataFrame = table.to_pandas()
    except DAMAGED as error:
        raise _no_arrow(path, error) from error
    return frame


def arrow_size(path: Path) -> Size:
    """Measure the messages' metadata: rows, and the length of each buffer once decompressed."""
    try:
        with pa.memory_map(str(path)) as file:
            columns = len(ipc.open_file(file).schema)
            file.seek(len(_MAGIC))
            sizes = [_measure(message) for message in _batches(file)]
    except (*DAMAGED, struct_error) as error:
        raise _no_arrow(path, error) from error
    rows = sum(count for count, _ in sizes)
    decoded = sum(size for _, size in sizes) + rows * columns * BYTES_PER_CELL
    return Size(file_bytes=path.stat().st_size, rows=rows, columns=columns, decoded_bytes=decoded)


def _no_arrow(path: Path, error: Exception) -> Exception:
    remedy = f"not an Arrow file ({error}); write it as Feather (version 2) or Parquet"
    return unreadable(path.name, remedy)


def _batches(file: object) -> Iterator[Any]:
    for message in ipc.MessageReader.open_stream(file):
        if message.type != "schema":
            yield message


def _measure(message: Any) -> tuple[int, int]:
    """Return the rows of a message (0 for a dictionary) and the bytes of its decompressed buffers."""
    table = _Flat(message.metadata.to_pybytes()).root().table(2)
    is_dictionary = message.type == "dictionary"
    batch = table.table(1) if is_dictionary else table
    packed = batch.has(3)
    total = 0
    for offset, length in batch.pairs(2):
        unpacked = -1
        if packed and length >= _PACKED_LENGTH:
            (unpacked,) = unpack_from("<q", message.body, offset)
        total += max(length, unpacked)
    return 0 if is_dictionary else batch.long(0), total


class _Flat:
    """A table of a flatbuffer, by its field numbers (FlatBuffers' "internals" page; Message.fbs)."""

    def __init__(self, data: bytes, at: int = 0) -> None:
        self._data, self._at = data, at

    def root(self) -> _Flat:
        return _Flat(self._data, self._read("<I", 0))

    def has(self, field: int) -> bool:
        return self._place(field) > 0

    def table(self, field: int) -> _Flat:
        place = self._place(field)
        return _Flat(self._data, place + self._read("<I", place))

    def long(self, field: int) -> int:
        place = self._place(field)
        return self._read("<q", place) if place else 0

    def pairs(self, field: int) -> Iterator[tuple[int, int]]:
        """Yield the items of a vector of structures of two 64-bit integers."""
        place = self._place(field)
        if place:
            start = place + self._read("<I", place)
            for number in range(self._read("<I", start)):
                at = start + 4 + 16 * number
                yield self._read("<q", at), self._read("<q", at + 8)

    def _place(self, field: int) -> int:
        """Return the position of a field; 0 if the table does not have it."""
        fields = self._at - self._read("<i", self._at)
        entry = 4 + 2 * field
        offset = self._read("<H", fields + entry) if entry < self._read("<H", fields) else 0
        return self._at + offset if offset else 0

    def _read(self, form: str, at: int) -> int:
        (value,) = unpack_from(form, self._data, at)
        return int(value)
