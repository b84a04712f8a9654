"""Fingerprints that show an operator that two names hold the same rows, or the same people.

A sketch is the least keyed hashes of a set (Broder 1997; bottom-k): without the key it does not reveal
whether a record is in it. It makes evasion harder and proves nothing: a change in every row, other
pseudonyms, joins and aggregates are not detected.
"""

from __future__ import annotations

import hmac
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime
from decimal import Context, Decimal, InvalidOperation
from typing import Annotated

from pydantic import Field

from nss_train.contract import Frozen

KEPT = 1024
SAME = 0.1
"""Least common share of the smaller of two tables that makes them the same data."""
_HASH_CHARS = 32
_DIGITS = Context(prec=12)
"""Fewer digits than a float's 15: an export that rounds the last of them is still a copy."""
_NUMBER = re.compile(r"[+-]?(\d{1,40}\.?\d{0,40}|\.\d{1,40})([eE][+-]?\d{1,4})?")
_NULLS = frozenset(("", "null", "none", "nan", "na", "n/a", "<na>", "nat"))
_LONGEST_DATE = 40

Hash = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]


class Least(Frozen):
    """The least keyed hashes of a set's members, ascending."""

    hashes: Annotated[tuple[Hash, ...], Field(max_length=KEPT)] = ()

    @property
    def _bound(self) -> str:
        """Return the bound up to which all hashes of the set are kept."""
        return self.hashes[-1] if len(self.hashes) == KEPT else "g"

    def overlap(self, other: Least) -> float:
        """Return the share of the smaller set that is in the other, estimated where both are complete."""
        bound = min(self._bound, other._bound)
        mine, theirs = ({one for one in each.hashes if one <= bound} for each in (self, other))
        fewer = min(len(mine), len(theirs))
        return len(mine & theirs) / fewer if fewer else 0.0


class Sketch(Frozen):
    """The sketch of a table: its records and, where a column's values are units, those values."""

    records: Least
    units: Least = Least()

    def overlap(self, other: Sketch) -> float:
        """Return the larger of the shares of records and of units that two tables have in common."""
        return max(self.records.overlap(other.records), self.units.overlap(other.units))


def sketch(records: Iterable[bytes], units: Iterable[bytes] = (), *, key: bytes) -> Sketch:
    """Return the sketch of a table's canonical records and of its units' canonical values."""
    return Sketch(records=_least(records, key, b"record"), units=_least(units, key, b"unit"))


def canonical_record(cells: Mapping[str, bytes | None]) -> bytes:
    """Return a record's content, whatever the order of its columns; missing cells are left out."""
    parts = [(name.encode(), cell) for name, cell in sorted(cells.items()) if cell is not None]
    return b"".join(b"%d:%b%d:%b" % (len(name), name, len(cell), cell) for name, cell in parts)


def canonical_cell(raw: bytes) -> bytes | None:
    """Return a cell's value, whatever its file's format: ``63.0``, ``"63"`` and ``63`` are the same."""
    text = _unquoted(raw.decode(errors="replace").strip()).strip()
    if text.lower() in _NULLS:
        return None
    if text.lower() in ("true", "false"):
        return text.lower().encode()
    # An escape such as \ud800 is a character that has no UTF-8.
    return (_number(text) or _date(text) or text).encode(errors="surrogatepass")


def _unquoted(text: str) -> str:
    if len(text) < 2 or not (text[0] == text[-1] == '"'):
        return text
    try:
        return str(json.loads(text))
    except ValueError:
        return text[1:-1].replace('""', '"')


def _number(text: str) -> str | None:
    if not _NUMBER.fullmatch(text):
        return None
    try:
        return str(Decimal(text).normalize(_DIGITS) + 0)  # no negative zero
    except InvalidOperation:
        return None


def _date(text: str) -> str | None:
    """Return a date in ISO 8601 without a midnight time, so that a date equals its midnight."""
    if len(text) > _LONGEST_DATE or not text[:4].isdigit():
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return None
    return found.isoformat().removesuffix("T00:00:00")


def _least(members: Iterable[bytes], key: bytes, kind: bytes) -> Least:
    hashes = (hmac.digest(key, kind + b"\0" + member, "sha256").hex()[:_HASH_CHARS] for member in members)
    return Least(hashes=tuple(_smallest(hashes)))


def _smallest(hashes: Iterable[str]) -> Iterator[str]:
    """Yield the :data:`KEPT` smallest distinct hashes, in the memory of twice as many."""
    kept: set[str] = set()
    bound = "g"
    for one in hashes:
        if one < bound:
            kept.add(one)
        if len(kept) >= 2 * KEPT:
            kept = set(sorted(kept)[:KEPT])
            bound = max(kept)
    yield from sorted(kept)[:KEPT]
