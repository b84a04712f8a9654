"""Neighbours of a table through the real stages, one after the other, and what tells them apart."""

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
"""What a noisy count says of the small tables here; as it falls it would refuse most of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Case:
    """A table, the job that is asked for, and neighbours."""

    table: TableFile
    request: Request
    edits: tuple[Edit, ...]
    noisy_count: int | None = NOISY_COUNT


@dataclass(frozen=True, kw_only=True, slots=True)
class Found:
    """A difference, and the pair of worlds that it is between."""

    pair: str
    difference: Difference

    def __str__(self) -> str:
        return f"{self.pair}: {self.difference}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Replay:
    """What became of some pairs of worlds."""

    pairs: int
    refused: int
    """Tables that were refused, in both worlds of each pair: of these the refusal is compared."""
    found: tuple[Found, ...]

    @property
    def seen_by(self) -> Mapping[str, int]:
        """How often each comparison found something."""
        return Counter(found.difference.check for found in self.found)

    @property
    def holds(self) -> bool:
        """Whether nothing tells any pair apart."""
        return not self.found

    def as_json(self) -> dict[str, Any]:
        """The same as plain JSON."""
        return {
            "pairs": self.pairs,
            "refused": self.refused,
            "holds": self.holds,
            "seen_by": dict(self.seen_by),
            "differences": [str(found) for found in self.found],
        }


def replay(cases: Iterable[Case], *, until: Collection[str] = ()) -> Replay:
    """Compare tables with their neighbours: all, or ``until`` some comparisons have found something each."""
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
    """Whether the guarantee hides all that the edit does: n must not go by the rows that come or go.

    A job that is not strict publishes what it likes; then only the other units' tokens are compared.
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
    """Whether a row more moves the threshold of all coins: ``holdout`` is a number, and n counts rows.

    n is public then, and tables of different n are no neighbours.
    """
    places = {len(case.table.records), len(edit.changed.records)}
    return len({share_held_out(case.request.config, n) for n in places}) > 1


def _scanned(world: World) -> Iterator[Found]:
    for digest in DigestScanner(private_pieces(world)).find(world.published):
        yield Found(pair="the table alone", difference=Difference(check="digests", detail=digest))
