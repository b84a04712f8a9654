"""What goes into each noisy release: every one is a measurement of OpenDP, and all of those are seen."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock


@dataclass(frozen=True, kw_only=True, slots=True)
class Released:
    """The secret input of one noisy release."""

    measurement: str
    """Its input domain and metric: public."""
    values: tuple[Any, ...]
    """Of a list its elements; of a number this one alone."""
    is_number: bool

    def distance(self, other: Released) -> float:
        """How far two inputs are apart: elements more or less, or the difference of two numbers."""
        if self.is_number:
            return float(abs(self.values[0] - other.values[0]))
        one, two = Counter(self.values), Counter(other.values)
        return float((one - two).total() + (two - one).total())


@contextmanager
def seen_releases() -> Iterator[list[Released]]:
    """A list that each measurement's input is put into while this lasts."""
    from opendp.mod import Measurement

    found: list[Released] = []
    honest = Measurement.__call__

    def watched(measurement: Any, value: Any) -> Any:
        is_number = isinstance(value, int | float)
        values = (value,) if is_number else tuple(value)
        description = f"{measurement.input_domain} {measurement.input_metric}"
        found.append(Released(measurement=description, values=values, is_number=is_number))
        return honest(measurement, value)

    with mock.patch.object(Measurement, "__call__", watched):
        yield found
