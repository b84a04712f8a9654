"""Types of columns that cannot be written into a record."""

from __future__ import annotations

from collections.abc import Iterator

import pyarrow as pa
from pyarrow import types

from nss_train.errors import DataError, Problem

_REFUSED = (
    (
        ("is_binary", "is_large_binary", "is_fixed_size_binary", "is_binary_view"),
        "bytes; leave the column out, or write it as text",
    ),
    (("is_map",), "maps; write each as an object with fixed names, as a list of pairs, or as text"),
    (("is_union",), "values of different types; write it as text"),
    (("is_interval",), "calendar intervals; write it as text, or as a number of days"),
)


def check_types(schema: pa.Schema) -> None:
    """Raise :class:`DataError` naming every column that holds what JSON cannot, however deep."""
    problems = [
        Problem(field=field.name, value=str(field.type)[:100], remedy=f"the column holds {found}")
        for field in schema
        if (found := next(_refused(field.type), None)) is not None
    ]
    if problems:
        raise DataError("The table has columns that cannot be trained on.", problems)


def _refused(kind: pa.DataType) -> Iterator[str]:
    for names, said in _REFUSED:
        if any(getattr(types, name)(kind) for name in names):
            yield said
    if types.is_dictionary(kind):
        yield from _refused(kind.value_type)
    elif isinstance(kind, pa.BaseExtensionType):
        yield from _refused(kind.storage_type)
    elif types.is_nested(kind):
        for number in range(kind.num_fields):
            yield from _refused(kind.field(number).type)
