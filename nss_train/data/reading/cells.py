"""A table's cells as its file has them, in one pass and a bounded part of the memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pandas as pd
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.json as pa_json
import pyarrow.parquet as pq
from pyarrow import ipc, types

from nss_train.data.reading.dialect import Dialect
from nss_train.formats import Format

BATCH_ROWS = 65_536
_BLOCK_BYTES = 2**25
"""More than the longest line that the limits of tables allow."""

Batches = Iterator[pa.RecordBatch]


@dataclass(frozen=True, kw_only=True, slots=True)
class TableFile:
    """An unpacked file whose form is known; JSON is JSON Lines."""

    path: Path
    form: Format
    dialect: Dialect = field(default_factory=Dialect)
    dropped: frozenset[str] = frozenset()
    """Columns that are left out, as the readers name them."""

    @property
    def tells_types(self) -> bool:
        """Whether the file itself says which cells are texts."""
        return self.form is not Format.CSV


Reader = Callable[[TableFile], Batches]


def readers(form: Format) -> tuple[Reader | None, Reader]:
    """A quick way to read a form, if there is one, and one that cuts rows as the table's own reader does."""
    by_form: dict[Format, tuple[Reader | None, Reader]] = {
        Format.CSV: (_csv, _csv_by_pandas),
        Format.JSON: (None, _json_lines),
        Format.PARQUET: (None, _parquet),
        Format.ARROW: (None, _arrow),
    }
    return by_form[form]


def _csv(file: TableFile) -> Batches:
    """All cells as text; an order of magnitude quicker than pandas, and less tolerant."""
    dialect = file.dialect
    names = [str(name) for name in next(text_frames(file, chunk_rows=1)).columns]
    reader = pa_csv.open_csv(
        file.path,
        read_options=pa_csv.ReadOptions(
            column_names=names, skip_rows_after_names=1, block_size=_BLOCK_BYTES, encoding=dialect.encoding
        ),
        parse_options=pa_csv.ParseOptions(
            delimiter=dialect.delimiter, quote_char=dialect.quote, newlines_in_values=True
        ),
        convert_options=pa_csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()), strings_can_be_null=False
        ),
    )
    for batch in reader:
        yield from _cut(batch)


def _csv_by_pandas(file: TableFile) -> Batches:
    for frame in text_frames(file, chunk_rows=BATCH_ROWS):
        yield pa.RecordBatch.from_pandas(frame, preserve_index=False)


def text_frames(file: TableFile, *, chunk_rows: int) -> Iterator[pd.DataFrame]:
    """All cells of a text table as texts; an empty one is an empty text."""
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


def _json_lines(file: TableFile) -> Batches:
    """Numbers with their types, strings as strings, also where they look like times."""
    path = file.path
    options = pa_json.ReadOptions(block_size=_BLOCK_BYTES)
    table = pa_json.read_json(path, read_options=options)
    times = [(field.name, pa.string()) for field in table.schema if types.is_timestamp(field.type)]
    if times:
        parse = pa_json.ParseOptions(explicit_schema=pa.schema(times))
        table = pa_json.read_json(path, read_options=options, parse_options=parse)
    for batch in table.to_batches(max_chunksize=BATCH_ROWS):
        yield from _cut(batch)


def _cut(batch: pa.RecordBatch) -> Batches:
    for start in range(0, batch.num_rows, BATCH_ROWS):
        yield batch.slice(start, BATCH_ROWS)
