"""The replay of a table's neighbours through the real stages, and what distinguishes them."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Request
from nss_train.privacy.accounting.plan import Source
from nss_train.privacy.audit.neighbours.comparison import Difference, differences
from nss_train.privacy.audit.neighbours.digests import DigestScanner
from nss_train.privacy.audit.neighbours.edits import Edit
from nss_train.privacy.audit.neighbours.tables import TableFile
from nss_train.privacy.audit.neighbours.worlds import Secrets, World, private_pieces, run
from nss_train.privacy.schema.unit_count import share_held_out, source_of_units

NOISY_COUNT = 40
"""Noisy count injected for the small tables here; a real one would refuse most of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A table, a job on it, and neighbours."""

    table: TableFile
    request: Request
    edits: tuple[Edit, ...]
    noisy_count: int | None = NOISY_COUNT


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A difference, and the pair of worlds that it distinguishes."""

    pair: str
    difference: Difference

    def __str__(self) -> str:
        return f"{self.pair}: {self.difference}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """The result of comparing pairs of worlds."""

    pairs: int
    refused: int
    """Number of tables that were refused; their refusals are compared with those of their neighbours."""
    found: tuple[Found, ...]

    @property
    def seen_by(self) -> Mapping[str, int]:
        """Return how often each comparison found something."""
        return Counter(found.difference.check for found in self.found)

    @property
    def holds(self) -> bool:
        """Tell whether no pair can be distinguished."""
        return not self.found

    def as_json(self) -> dict[str, Any]:
        """Return the result as plain JSON."""
        return {
            "pairs": self.pairs,
            "refused": self.refused,
            "holds": self.holds,
            "seen_by": dict(self.seen_by),
            "differences": [str(found) for found in self.found],
        }


def replay(cases: Iterable[Case], *, until: Collection[str] = ()) -> Replay:
    """Compare all tables with their neighbours, or stop once each comparison in ``until`` found something."""
    pairs = refused = 0
    found: list[Found] = []
    for case in cases:
        with tempfile.TemporaryDirectory() as folder:
            one = _first(case, Path(folder))
            refused += one.was_refused
            found += _scanned(one)
            for edit in case.edits:
                if until and set(until) <= {seen.difference.check for seen in found}:
                    return Replay(pairs=pairs, refused=refused, found=tuple(found))
                found += _compared(case, one, edit, Path(folder))
                pairs += 1
    return Replay(pairs=pairs, refused=refused, found=tuple(found))


def public_is_same(config: SafeSynthesizerParameters, edit: Edit) -> bool:
    """Tell whether the guarantee hides the whole edit: n must not follow rows that are added or removed.

    A job that is not strict may publish more; then only the other units' tokens are compared.
    """
    return config.strictly_private and (edit.keeps_places or source_of_units(config) is not Source.ROWS)


def _first(case: Case, folder: Path) -> World:
    return run(case.table, case.request, folder / "table", Secrets(units=case.noisy_count))


def _compared(case: Case, one: World, edit: Edit, folder: Path) -> Iterator[Found]:
    place = folder / "neighbour"
    other = run(edit.changed, case.request, place, Secrets(units=case.noisy_count, draw=one.draw))
    shutil.rmtree(place)
    same = public_is_same(case.request.config, edit)
    for difference in differences(one, other, edit, public_is_same=same):
        if difference.check != "units" or same or not _share_follows_rows(case, edit):
            yield Found(pair=str(edit), difference=difference)


def _share_follows_rows(case: Case, edit: Edit) -> bool:
    """Tell whether one more row moves all coins' threshold: ``holdout`` is a number, and n counts rows.

    Then n is public, and tables of different n are not neighbours.
    """
    places = {len(case.table.records), len(edit.changed.records)}
    return len({share_held_out(case.request.config, n) for n in places}) > 1


def _scanned(world: World) -> Iterator[Found]:
    for digest in DigestScanner(private_pieces(world)).find(world.published):
        yield Found(pair="the table alone", difference=Difference(check="digests", detail=digest))
