"""Mistakes about units and their number, planted on purpose."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest import mock

import numpy as np

from nss_train.privacy.audit.neighbours.planted.fault import Plant
from nss_train.privacy.schema import publication
from nss_train.privacy.schema.unit_count import draw_counts
from nss_train.privacy.units import FoundUnits, find_units
from nss_train.stages import private_preparation as preparation


def held_out_by(choose: Callable[[FoundUnits, float], Any]) -> Plant:
    """Return a fault that holds units out by ``choose`` instead of each unit's own coin."""

    @contextmanager
    def plant() -> Iterator[None]:
        def toss(units: FoundUnits, *_: Any, share: float) -> Any:
            return choose(units, share)

        with mock.patch.object(preparation, "toss", toss):
            yield

    return plant


def permuted(units: FoundUnits, share: float) -> Any:
    held = np.zeros(len(units), dtype=bool)
    held[np.random.default_rng(1).permutation(len(units))[: int(share * len(units))]] = True
    return held


def longest(units: FoundUnits, share: float) -> Any:
    held = np.zeros(len(units), dtype=bool)
    held[np.argsort(-units.groups.tokens, kind="stable")[: int(share * len(units))]] = True
    return held


@contextmanager
def distinct_values_as_n() -> Iterator[None]:
    """Use the exact number of distinct values of the unit's column as n."""
    counted = [0]

    def found(*given: Any) -> FoundUnits:
        units = find_units(*given)
        counted[0] = len(units) + units.idle
        return units

    with (
        mock.patch.object(preparation, "find_units", found),
        mock.patch.object(publication, "public_units", side_effect=lambda *_, **__: counted[0]),
    ):
        yield


@contextmanager
def records_in_the_count() -> Iterator[None]:
    """Add the noise for one unit to a count of records, of which a unit has several."""

    def counts(config: Any, products: Any, *, effective: int, idle: int) -> Any:
        return draw_counts(config, products, effective=3 * effective, idle=idle)

    with mock.patch.object(publication, "draw_counts", counts):
        yield
