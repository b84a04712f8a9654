"""The cells of a table as its file has them, in one pass with bounded memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from pyarrow import ipc, types

from nss_train.data.reading.spreadsheet import sheet_cells
from nss_train.data.reading.text.dialect import Dialect
from nss_train.formats import Format

BATCH_ROWS = 65_536
_BLOCK_BYTES = 2**25
"""Size of a block: more than the longest line that the limits of tables allow."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """A decompressed file whose format is known; JSON means JSON Lines."""

    path: Path
    form: Format
    dialect: Dialect = field(default_factory=Dialect)
    dropped: frozenset[str] = frozenset()
    """Columns that are left out, by the names that the readers give them."""

    @property
    def tells_types(self) -> bool:
        """Return whether the file itself states which cells are texts."""
        return self.form is not Format.CSV


Reader = Callable[[TableFile], Batches]


def readers(form: Format) -> tuple[Reader | None, Reader]:
    """Return a quick reader of a format, if any, and one that splits rows as the table's own reader does."""
    by_form: dict[Format, tuple[Reader | None, Reader]] = {
        Format.CSV: (_csv, _csv_by_pandas),
        Format.JSON: (None, _json_lines),
        Format.PARQUET: (None, _parquet),
        Format.ARROW: (None, _arrow),
        Format.XLSX: (None, _xlsx),
    }
    return by_form[form]


def _csv(file: TableFile) -> Batches:
    """Yield cells as text; an order of magnitude quicker than pandas, and less tolerant.

    One column is read for its rows even if all are left out.
    """
    dialect = file.dialect
    names = [str(name) for name in next(text_frames(file, chunk_rows=1)).columns]
    kept = [name for name in names if name not in file.dropped] or names[:1]
    reader = pa_csv.open_csv(
        file.path,
        read_options=pa_csv.ReadOptions(
            column_names=names, skip_rows_after_names=1, block_size=_BLOCK_BYTES, encoding=dialect.encoding
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=dialect.delimiter, quote_char=dialect.quote, newlines_in_values=True
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(kept, pa.string()), include_columns=kept, strings_can_be_null=False
        ),
    )
    for batch in reader:
        yield from _cut(batch)


def _csv_by_pandas(file: TableFile) -> Batches:
    for frame in text_frames(file, chunk_rows=BATCH_ROWS):
        yield pa.RecordBatch.from_pandas(frame, preserve_index=False)


def text_frames(file: TableFile, *, chunk_rows: int) -> Iterator[pd.DataFrame]:
    """Yield all cells of a text table as texts; an empty cell is an empty text."""
    dialect = file.dialect
    with pd.read_csv(
        file.path,
        sep=dialect.delimiter,
        quotechar=dialect.quote,
        encoding=dialect.encoding,
        dtype=str,
        na_filter=False,
        chunksize=chunk_rows,
    ) as reader:
        yield from reader


def _parquet(file: TableFile) -> Batches:
    with pq.ParquetFile(file.path) as opened:
        for batch in opened.iter_batches(batch_size=BATCH_ROWS):
            yield from _cut(batch)


def _arrow(file: TableFile) -> Batches:
    with pa.memory_map(str(file.path)) as mapped, ipc.open_file(mapped) as opened:
        for number in range(opened.num_record_batches):
            yield from _cut(opened.get_batch(number))


def _xlsx(file: TableFile) -> Batches:
    arrays = {name: _of_sheet(cells) for name, cells in sheet_cells(file.path, dropped=file.dropped).items()}
    yield from _cut(pa.RecordBatch.from_pydict(arrays))


def _of_sheet(cells: list[Any]) -> pa.Array:
    """Return the cells as an array; cells of different types become texts."""
    kinds = {type(cell) for cell in cells if cell is not None}
    if len(kinds) > 1 and kinds != {int, float}:
        return pa.array([None if cell is None else str(cell) for cell in cells], pa.string())
    return pa.array(cells, pa.float64() if kinds == {int, float} else None)


def _json_lines(file: TableFile) -> Batches:
    """Yield numbers with their types and strings as strings, even if they look like times, block by block."""
    texts: dict[str, pa.DataType] = {}
    kinds: dict[str, str] = {}
    for block in _blocks(file.path):
        table = _parsed(block, texts)
        times = {one.name: kind for one in table.schema if (kind := _untimed(one.type)) != one.type}
        if times:
            texts |= times
            table = _parsed(block, texts)
        for one in table.schema:
            _check_kind(one.name, one.type, kinds)
        for batch in table.to_batches(max_chunksize=BATCH_ROWS):
            yield from _cut(batch)


def _blocks(path: Path) -> Iterator[bytes]:
    """Yield whole lines, some megabytes at a time."""
    with path.open("rb") as opened:
        while block := opened.read(_BLOCK_BYTES):
            block += opened.readline()
            if block.strip():
                yield block


def _parsed(block: bytes, texts: Mapping[str, pa.DataType]) -> pa.Table:
    return pa_json.read_json(
        pa.BufferReader(block),
        read_options=pa_json.ReadOptions(block_size=len(block) + 1),
        parse_options=pa_json.ParseOptions(explicit_schema=pa.schema(texts.items())),
    )


def _untimed(kind: pa.DataType) -> pa.DataType:
    """Return the type with strings in place of times, at every depth."""
    if types.is_timestamp(kind):
        return pa.string()
    if types.is_list(kind):
        return pa.list_(_untimed(kind.value_type))
    if types.is_struct(kind):
        return pa.struct([(kind.field(n).name, _untimed(kind.field(n).type)) for n in range(kind.num_fields)])
    return kind


def _check_kind(name: str, kind: pa.DataType, kinds: dict[str, str]) -> None:
    """Raise Arrow's error for a column of several types, even if they occur in different blocks."""
    if types.is_null(kind):
        return
    is_number = types.is_integer(kind) or types.is_floating(kind)
    found = "number" if is_number else str(kind.id) if types.is_nested(kind) else str(kind)
    if kinds.setdefault(name, found) != found:
        raise pa.ArrowInvalid(f"Column(/{name}) changed from {kinds[name]} to {found}")


def decoded(cells: pa.Array) -> pa.Array:
    """Return cells that each stand for themselves, in a type that Arrow's functions know."""
    if types.is_dictionary(cells.type):
        return cells.dictionary_decode()
    if types.is_run_end_encoded(cells.type):
        return pc.run_end_decode(cells)
    if types.is_decimal32(cells.type) or types.is_decimal64(cells.type):
        return cells.cast(pa.decimal128(cells.type.precision, cells.type.scale))
    return cells


def _cut(batch: pa.RecordBatch) -> Batches:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)
