"""A planted mistake, and the comparisons that must see it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, NamedTuple

Plant = Callable[[], AbstractContextManager[Any]]


class Fault(NamedTuple):
    """A mistake, and the comparisons that must see it."""

    plant: Plant
    seen_by: frozenset[str]

    @classmethod
    def seen(cls, plant: Plant, *checks: str) -> Fault:
        return cls(plant, frozenset(checks))
