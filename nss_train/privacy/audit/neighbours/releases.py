"""The inputs of all noisy releases: each is an OpenDP measurement, and every measurement is recorded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import Any
from unittest import mock

from nss_train.data.assembly.layout import Order
from nss_train.data.tokenization.distinct_values import Column
from nss_train.privacy.schema import publication
from nss_train.privacy.schema.published_schema import draw_schema


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """The secret input of one noisy release."""

    of: str
    """Public description of the release."""
    values: tuple[Any, ...]
    """One value per unit, or one number that aggregates them."""
    is_number: bool = False
    has_names: bool = True
    """``True`` if a value stands for itself, not for an arbitrary code."""

    def distance(self, other: Released) -> float:
        """Return the distance of two inputs: values added and removed, or the difference of two numbers."""
        if self.is_number:
            return float(abs(self.values[0] - other.values[0]))
        one, two = Counter(self.values), Counter(other.values)
        if self.has_names:
            return float((one - two).total() + (two - one).total())
        counts = zip_longest(*(sorted(side.values(), reverse=True) for side in (one, two)), fillvalue=0)
        return float(sum(abs(a - b) for a, b in counts))


@contextmanager
def seen_releases() -> Iterator[list[Released]]:
    """Yield a list to which the input of each noisy release is appended.

    OpenDP gets values as codes, assigned in order of appearance; their meaning is recorded where the schema
    is drawn.
    """
    from opendp.mod import Measurement

    found: list[Released] = []
    invoke = Measurement.__call__

    def watched(measurement: Any, value: Any) -> Any:
        is_number = isinstance(value, int | float)
        values = (value,) if is_number else tuple(value)
        of = f"{measurement.input_domain} {measurement.input_metric}"
        found.append(Released(of=of, values=values, is_number=is_number, has_names=False))
        return invoke(measurement, value)

    def watched_schema(
        columns: Sequence[Column], types: Any, firsts: Order, *given: Any, **named: Any
    ) -> Any:
        found.extend(
            Released(of=column.name, values=tuple(column.texts[code] for code in column.codes[firsts]))
            for column in columns
        )
        return draw_schema(columns, types, firsts, *given, **named)

    with (
        mock.patch.object(Measurement, "__call__", watched),
        mock.patch.object(publication, "draw_schema", watched_schema),
    ):
        yield found
