"""The reading of a table as it is written: no cell changes.

A column of a CSV file is read as integers, numbers or booleans only if JSON writes every cell the same
way; otherwise it is text. Types that a file declares are kept, and types that JSON lacks become text.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import date, time, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pyarrow import ipc, types

from nss_train.config.sections.reading import ColumnReading, column_setting
from nss_train.data.columns import check_known
from nss_train.data.reading.cells import BATCH_ROWS, TableFile, decoded, text_frames
from nss_train.data.reading.json_lines import exact_objects
from nss_train.data.reading.spreadsheet import sheet_cells
from nss_train.data.tokenization.distinct_values import exact_texts, plain_text
from nss_train.data.types import UNWRITABLE
from nss_train.errors import DataError, Problem
from nss_train.formats import Format

_INTEGER = r"^(0|-?[1-9][0-9]{0,18})$"
_BOOLEANS = ({"true", "false"}, {"True", "False"}, {"TRUE", "FALSE"})
"""Spellings of booleans; a column of booleans uses only one of them, so that no two cells become equal."""
_NAMELESS = "__index_level_"
"""Prefix of the name that pandas gives to an unnamed index in a file."""
_INT64 = range(-(2**63), 2**63)
_JSON_KINDS = {
    bool: "booleans",
    int: "numbers",
    Decimal: "numbers",
    str: "texts",
    list: "lists",
    dict: "objects",
}


Columns = dict[str, Callable[..., "pd.Series[Any]"]]
"""Function for each column that makes its values; ``as_text`` says whether as text."""


def read_faithfully(file: TableFile, *, texts: Collection[str] = ()) -> pd.DataFrame:
    """Return a file's table as it is written; columns in ``texts`` are read as text, whatever they hold."""
    columns = _columns(file)
    check_known(texts, columns)
    return pd.DataFrame(_made(columns, texts))


def read_texts(file: TableFile, names: Collection[str]) -> dict[str, pd.Series[Any]]:
    """Return some columns as text."""
    columns = _columns(file)
    check_known(names, columns)
    return _made({name: columns[name] for name in names}, names)


def _made(columns: Columns, texts: Collection[str]) -> dict[str, pd.Series[Any]]:
    """Return the values of each column; :class:`DataError` lists columns that cannot be written."""
    made: dict[str, pd.Series[Any]] = {}
    problems: list[Problem] = []
    message = "The table has columns that cannot be trained on."
    for name, column in columns.items():
        try:
            made[name] = column(as_text=name in texts)
        except DataError as error:
            problems += error.problems
            message = error.message
        except UNWRITABLE as error:
            told = f"its values cannot be written ({error}); change them, or leave the column out"
            told = f"{told} ({column_setting(name, ColumnReading.DROP)})"
            problems.append(Problem(field=name, value=None, remedy=told))
    if problems:
        raise DataError(message, problems)
    return made


def _columns(file: TableFile) -> Columns:
    return {name: column for name, column in _all_columns(file).items() if name not in file.dropped}


def _all_columns(file: TableFile) -> Columns:
    if file.form is Format.CSV:
        return _csv_columns(file)
    if file.form is Format.JSON:
        return _json_columns(file)
    if file.form is Format.XLSX:
        return _sheet_columns(file)
    return _arrow_columns(
        pq.read_table(file.path) if file.form is Format.PARQUET else _arrow_table(file.path)
    )


def _csv_columns(file: TableFile) -> Columns:
    """Return the columns of a text table, whose only null is the empty cell."""
    frame = pd.concat(text_frames(file, chunk_rows=BATCH_ROWS), ignore_index=True)
    return {str(name): _later(_of_texts, frame[name]) for name in frame.columns}


def _json_columns(file: TableFile) -> Columns:
    """Return the columns of a JSON Lines file; a name that an object lacks is null."""
    rows = list(exact_objects(file.path))
    names = dict.fromkeys(name for row in rows for name in row)
    check_known(file.dropped, names)
    return {name: _later(_of_json, name, [row.get(name) for row in rows]) for name in names}


def _arrow_columns(table: pa.Table) -> Columns:
    """Return the columns of a typed table, after the named columns of a data frame's index."""
    told = (table.schema.pandas_metadata or {}).get("index_columns", ())
    index = [name for name in told if isinstance(name, str)]  # numbered rows are not a column
    named = [name for name in index if not name.startswith(_NAMELESS)]
    names = [*named, *(name for name in table.column_names if name not in index)]
    return {name: _later(_of_arrow, table.column(name)) for name in names}


def _arrow_table(path: Path) -> pa.Table:
    with pa.memory_map(str(path)) as mapped:
        return ipc.open_file(mapped).read_all()


def _sheet_columns(file: TableFile) -> Columns:
    """Return the columns of a workbook, whose cells become the JSON values for them."""
    columns = sheet_cells(file.path, dropped=file.dropped)
    return {name: _later(_of_json, name, list(map(_as_json, cells))) for name, cells in columns.items()}


def _as_json(cell: object) -> Any:
    if isinstance(cell, float):
        return Decimal(repr(cell))
    if isinstance(cell, timedelta):
        return pd.Timedelta(cell).isoformat()
    return cell.isoformat() if isinstance(cell, date | time) else cell


def _later(make: Callable[..., pd.Series[Any]], *arguments: object) -> Callable[..., pd.Series[Any]]:
    return lambda *, as_text: make(*arguments, as_text=as_text)


def _of_texts(cells: pd.Series[Any], *, as_text: bool) -> pd.Series[Any]:
    texts = pa.array(cells, pa.string())
    texts = pc.if_else(pc.equal(texts, ""), None, texts)
    found = texts.drop_null().unique()
    if as_text or len(found) == 0:
        return _texts(texts)
    if _is_integer(found):
        return _typed(texts.cast(pa.int64()))
    if all(map(_is_number, found.to_pylist())):
        return _typed(texts.cast(pa.float64()))
    if any(spelling.issuperset(found.to_pylist()) for spelling in _BOOLEANS):
        return _typed(pc.equal(pc.utf8_lower(texts), "true"))
    return _texts(texts)


def _is_integer(texts: pa.Array) -> bool:
    if not pc.all(pc.match_substring_regex(texts, _INTEGER)).as_py():
        return False
    return all(
        int(text) in _INT64 for text in texts.filter(pc.greater(pc.utf8_length(texts), 18)).to_pylist()
    )


def _is_number(text: str) -> bool:
    """Tell whether a text is what JSON writes for a float."""
    try:
        value = float(text)
    except ValueError:
        return False
    return repr(value) == text and text.lstrip("-")[0].isdigit()


def _of_json(name: str, values: list[Any], *, as_text: bool) -> pd.Series[Any]:
    kinds = {_JSON_KINDS[type(value)] for value in values if value is not None}
    if as_text:
        return _texts(
            pa.array([value if isinstance(value, str | None) else _written(value) for value in values])
        )
    if len(kinds) > 1:
        told = f"set {column_setting(name, ColumnReading.TEXT)}, or give all cells one type"
        problem = Problem(field=name, value=f"a column of {' and '.join(sorted(kinds))}", remedy=told)
        raise DataError("The table has columns of more than one type.", [problem])
    if kinds == {"numbers"}:
        return _numbers(values)
    if kinds == {"booleans"}:
        return _typed(pa.array(values, pa.bool_()))
    return pd.Series([_plain(value) for value in values], dtype=object)


def _numbers(values: list[Any]) -> pd.Series[Any]:
    """Return integers or floats if these are exact, otherwise the digits as text."""
    found = {value for value in values if value is not None}
    if all(isinstance(value, int) and value in _INT64 for value in found):
        return _typed(pa.array(values, pa.int64()))
    if all(_is_exact(value) for value in found) and any(isinstance(value, Decimal) for value in found):
        return _typed(pa.array([None if value is None else float(value) for value in values], pa.float64()))
    return _texts(pa.array([None if value is None else str(value) for value in values], pa.string()))


def _written(value: object) -> str:
    """Return the JSON of a value that is not a text; for a number, its digits."""
    is_number = isinstance(value, Decimal | int) and not isinstance(value, bool)
    return str(value) if is_number else exact_texts([_plain(value)])[0]


def _is_exact(value: Any) -> bool:
    """Tell whether a float represents the same number."""
    return bool(Decimal(repr(float(Decimal(value)))) == value)


def _of_arrow(cells: pa.ChunkedArray, *, as_text: bool) -> pd.Series[Any]:
    kind = cells.type
    if types.is_dictionary(kind) or types.is_run_end_encoded(kind):
        return _of_arrow(pa.chunked_array(map(decoded, cells.chunks), kind.value_type), as_text=as_text)
    if isinstance(kind, pa.BaseExtensionType):
        stored = pa.chunked_array([chunk.storage for chunk in cells.chunks], kind.storage_type)
        return _of_arrow(stored, as_text=as_text)
    if types.is_integer(kind) or types.is_boolean(kind):
        return _texts(cells.cast(pa.string())) if as_text else _typed(cells)
    if types.is_floating(kind):
        cells = cells.cast(pa.float64())
        cells = pc.if_else(pc.is_nan(cells), None, cells)
        is_finite = not pc.any(pc.is_inf(cells)).as_py()
        return _typed(cells) if is_finite and not as_text else _texts(_mapped(cells, repr))
    if types.is_nested(kind) and not as_text:
        return pd.Series(cells.to_pylist(), dtype=object)
    return _texts(_mapped(cells, _text))


def _mapped(cells: pa.ChunkedArray, text: Callable[[Any], str]) -> pa.Array:
    """Return a text for each cell, made once per distinct cell if the type allows it."""
    try:
        encoded = cells.combine_chunks().dictionary_encode()
    except pa.ArrowNotImplementedError:  # nested types
        return pa.array([None if cell is None else text(cell) for cell in cells.to_pylist()], pa.string())
    made = pa.array([text(value) for value in encoded.dictionary.to_pylist()], pa.string())
    return made.take(encoded.indices)


def _text(value: object) -> str:
    """Return a text as it is, a nested value as JSON, and any other value as plain text."""
    if isinstance(value, str):
        return value
    if isinstance(value, timedelta):  # its own text is no ISO 8601
        return pd.Timedelta(value).isoformat()
    return exact_texts([value])[0] if isinstance(value, list | dict) else plain_text(value)


def _typed(cells: pa.Array | pa.ChunkedArray) -> pd.Series[Any]:
    """Return a series; integers and booleans with gaps keep their type, in pandas' nullable form."""
    if cells.null_count == 0 or types.is_floating(cells.type):
        return pd.Series(cells.to_pandas())
    kind = str(cells.type)
    name = "boolean" if types.is_boolean(cells.type) else kind.replace("u", "U").replace("i", "I")
    nullable: Any = pd.api.types.pandas_dtype(name)
    return pd.Series(nullable.__from_arrow__(cells))


def _texts(cells: pa.Array | pa.ChunkedArray) -> pd.Series[Any]:
    return pd.Series(cells.cast(pa.string()).to_pandas(), dtype=object)


def _plain(value: object) -> Any:
    """Convert numbers at every depth to Arrow's types; numbers that do not fit become text."""
    if isinstance(value, list):
        return [_plain(one) for one in value]
    if isinstance(value, dict):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, Decimal):
        return float(value) if _is_exact(value) else str(value)
    return str(value) if isinstance(value, int) and value not in _INT64 else value
