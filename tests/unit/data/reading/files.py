"""Tables and files that the tests of reading share."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from nss_train.contract import TableLimits
from nss_train.data.source import read_table
from nss_train.errors import DataError

Refused = tuple[str, bytes, str]
"""A file's name, its content, and a pattern of the error."""


FRAME = pd.DataFrame(
    {"n": range(40), "x": [n + 0.5 for n in range(40)], "city": ["Köln", "Ada, B", 'a "b"', "x;y"] * 10}
)


def written(mark: str = ",", *, quote: str = '"', **options: Any) -> str:
    text = FRAME.to_csv(index=False, sep=mark, quotechar=quote, **options)
    assert isinstance(text, str)
    return text


def zstd(data: bytes) -> bytes:
    made = pa.BufferOutputStream()
    with pa.CompressedOutputStream(made, "zstd") as file:
        file.write(data)
    return bytes(made.getvalue())


def parquet(*names: str) -> bytes:
    made = io.BytesIO()
    pq.write_table(pa.Table.from_arrays([pa.array([1, 2])] * len(names), names=names), made)
    return made.getvalue()


def zipped(*names: str) -> bytes:
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in names:
            archive.writestr(name, written())
    return made.getvalue()


def write_xlsx(path: Path, *sheets: list[list[object]]) -> None:
    """Write a minimal workbook: Ecma Office Open XML, part 1, with texts in their cells."""
    start = '<?xml version="1.0" encoding="UTF-8" standalone="yes"?>'
    main = "http://schemas.openxmlformats.org/spreadsheetml/2006/main"
    rels = "http://schemas.openxmlformats.org/officeDocument/2006/relationships"
    numbers = range(1, len(sheets) + 1)
    parts = {
        "[Content_Types].xml": '<Types xmlns="http://schemas.openxmlformats.org/package/2006/content-types">'
        '<Default Extension="rels" ContentType="application/vnd.openxmlformats-package.relationships+xml"/>'
        '<Default Extension="xml" ContentType="application/xml"/></Types>',
        "_rels/.rels": '<Relationships xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        f'<Relationship Id="r" Type="{rels}/officeDocument" Target="xl/workbook.xml"/></Relationships>',
        "xl/workbook.xml": f'<workbook xmlns="{main}" xmlns:r="{rels}"><sheets>'
        + "".join(f'<sheet name="s{n}" sheetId="{n}" r:id="r{n}"/>' for n in numbers)
        + "</sheets></workbook>",
        "xl/_rels/workbook.xml.rels": "<Relationships"
        ' xmlns="http://schemas.openxmlformats.org/package/2006/relationships">'
        + "".join(
            f'<Relationship Id="r{n}" Type="{rels}/worksheet" Target="worksheets/{n}.xml"/>' for n in numbers
        )
        + "</Relationships>",
    }
    for number, rows in zip(numbers, sheets, strict=True):
        cells = "".join(f"<row>{''.join(map(_xlsx_cell, row))}</row>" for row in rows)
        parts[f"xl/worksheets/{number}.xml"] = (
            f'<worksheet xmlns="{main}"><sheetData>{cells}</sheetData></worksheet>'
        )
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, part in parts.items():
            archive.writestr(name, start + part)


def _xlsx_cell(value: object) -> str:
    if isinstance(value, str):
        return f'<c t="inlineStr"><is><t>{value.replace("&", "&amp;")}</t></is></c>'
    return "<c/>" if value is None else f"<c><v>{value}</v></c>"


def write(frame: pd.DataFrame, path: Path) -> Path:
    """Write a file of the kind of its suffix, with a nameless index where pandas or R would write one."""
    match path.suffix:
        case ".csv":
            frame.to_csv(path)
        case ".jsonl":
            frame.to_json(path, orient="records", lines=True)
        case ".parquet":
            frame.to_parquet(path)
        case ".feather":
            feather.write_feather(pa.Table.from_pandas(frame), str(path))
        case _:
            write_xlsx(
                path, [["", *frame.columns], *([n, *row] for n, row in enumerate(frame.values.tolist()))]
            )
    return path


def check_refused(name: str, content: bytes, says: str, folder: Path) -> None:
    """Assert that a file is refused with what it says, whether or not the size is limited."""
    (folder / name).write_bytes(content)
    for limits in (None, TableLimits()):
        with pytest.raises(DataError, match=says):
            read_table(folder / name, limits)
