"""Private tables of invented cells, as a reader leaves them."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.data.tokenization.distinct_values import Column, name_text


def private_table(
    columns: Mapping[str, Sequence[Any]], types: Mapping[str, ColumnType] | None = None
) -> PrivateTable:
    """Return a table of JSON values; records that are all null count for nothing."""
    null = np.asarray([all(v is None for v in record) for record in zip(*columns.values(), strict=True)])
    return PrivateTable(
        columns=tuple(_column(name, values) for name, values in columns.items()),
        types=dict.fromkeys(columns, ColumnType.ANY) | dict(types or {}),
        null=null.astype(bool),
        raw={name: _raw(values) for name, values in columns.items()},
    )


def _column(name: str, values: Sequence[Any]) -> Column:
    texts = [json.dumps(value, ensure_ascii=False) for value in values]
    distinct = list(dict.fromkeys(texts))
    return Column(
        name=name,
        label=name_text(name),
        kind=pa.string(),
        codes=np.asarray([distinct.index(text) for text in texts], dtype=np.int32),
        values=[json.loads(text) for text in distinct],
        texts=distinct,
    )


def _raw(values: Sequence[Any]) -> Raw:
    cells = ["" if value is None else str(value) for value in values]
    distinct = list(dict.fromkeys(cells))
    codes = np.asarray([distinct.index(cell) for cell in cells], dtype=np.int32)
    return Raw(codes=codes, cells=[cell.encode() for cell in distinct])
