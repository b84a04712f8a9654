"""The values of a record's cells and their JSON, byte for byte as the reference writes it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from typing import Any

from pandas.io.json import ujson_dumps  # type: ignore[attr-defined]

from nss_train.data.private.values.cells import quoted

NULL = "null"


class Verbatim(str):
    """A piece of JSON that is written into a record unchanged."""

    __slots__ = ()


class Digits(Verbatim):
    """A number of any size, written unchanged."""

    __slots__ = ()


Value = None | bool | int | float | str | Decimal
"""A cell's value; a ``str`` is a text, unless it is :class:`Verbatim`."""


def written(value: Value) -> str:
    """Return a value as JSON."""
    return _WRITERS[type(value)](value)


def number_of(value: Value) -> Decimal | None:
    """Return a number's exact value, by its shortest digits; ``None`` for anything else."""
    if isinstance(value, Decimal):
        return value
    if isinstance(value, Digits):
        try:
            return Decimal(value)
        except (
            InvalidOperation
        ):  # an exponent that no Decimal has; as digits are read only if a double is finite, 0
            return Decimal(0)
    if isinstance(value, bool | str) or value is None:
        return None
    return Decimal(repr(value))


_WRITERS: Mapping[type, Callable[[Any], str]] = {
    type(None): lambda _: NULL,
    bool: lambda value: "true" if value else "false",
    int: str,
    float: lambda value: str(ujson_dumps(value, double_precision=10)),
    str: quoted,
    Decimal: lambda value: format(value, "f"),
    Verbatim: str,
    Digits: str,
}
