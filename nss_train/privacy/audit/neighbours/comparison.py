"""The comparison of two neighbouring tables: their differences beyond the allowed ones."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from nss_train.privacy.audit.neighbours.edits import Edit, Moved
from nss_train.privacy.audit.neighbours.worlds import World

SHOWN = 60
"""Bytes of each side that a difference shows, around the first different one."""
MOST = 20
"""Most moves that are searched for; with more, two sequences count as unrelated."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Difference:
    """An observation that distinguishes two neighbours, although nothing may."""

    check: str
    """Name of the comparison that found it."""
    detail: str

    def __str__(self) -> str:
        return f"{self.check}: {self.detail}"


def differences(one: World, other: World, edit: Edit, *, public_is_same: bool) -> list[Difference]:
    """Return all forbidden differences. Where the edit changes public facts, only the rest is compared."""
    return [
        *_accidents(one, other),
        *(_published(one.published, other.published) if public_is_same else ()),
        *_releases(one, other, edit.steps),
        *_units(one, other, edit),
    ]


def _accidents(one: World, other: World) -> Iterator[Difference]:
    """Yield a failure that is not a refusal: a table may end a job in no other way."""
    for world in (one, other):
        if not (world.succeeded or world.was_refused):
            yield Difference(check="ending", detail=f"it failed inside: {world.ended_by!r}"[:300])


def _published(one: Mapping[str, bytes], other: Mapping[str, bytes]) -> Iterator[Difference]:
    for name in sorted(set(one) ^ set(other)):
        yield Difference(check="published", detail=f"{name} is there in one world alone")
    for name in sorted(set(one) & set(other)):
        if one[name] != other[name]:
            yield Difference(check="published", detail=f"{name}: {_around(one[name], other[name])}")


def _around(one: bytes, other: bytes) -> str:
    """Return both sides, from a little before the first different byte."""
    at = next(
        (at for at, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), min(len(one), len(other))
    )
    cut = slice(max(0, at - SHOWN // 3), at + SHOWN)
    return f"{one[cut]!r} ({len(one)} bytes) or {other[cut]!r} ({len(other)} bytes)"


def _releases(one: World, other: World, steps: int) -> Iterator[Difference]:
    """Yield differences of the inputs of noisy releases, if neither world ended before them."""
    if not (one.succeeded and other.succeeded):
        return
    if [r.of for r in one.releases] != [r.of for r in other.releases]:
        counts = f"{len(one.releases)} or {len(other.releases)}"
        yield Difference(check="releases", detail=f"other noisy releases are made: {counts} of them")
        return
    for number, (first, second) in enumerate(zip(one.releases, other.releases, strict=True)):
        if (apart := first.distance(second)) > steps:
            detail = f"input of noisy release {number} differs by {apart:g}, and {steps} is paid for"
            yield Difference(check="releases", detail=detail)


def _units(one: World, other: World, edit: Edit) -> Iterator[Difference]:
    """Yield changes to other units: of their tokens, their order or their side of a split."""
    if not (one.succeeded and other.succeeded):
        return
    units, rows = moves(one.train, other.train), moves(one.validation, other.validation)
    lost, gained = units.lost + (rows.lost > 0), units.gained + (rows.gained > 0)
    if lost > edit.moved.lost or gained > edit.moved.gained:
        may = f"{edit.moved.lost} and {edit.moved.gained} may"
        yield Difference(
            check="units", detail=f"{lost} units leave the examples and {gained} enter them, where {may}"
        )
    if max(rows.lost, rows.gained) > edit.records:
        detail = f"{rows.lost} records leave the validation and {rows.gained} enter it: more than were edited"
        yield Difference(check="units", detail=detail)


def moves(one: Sequence[bytes], other: Sequence[bytes]) -> Moved:
    """Return the least numbers of elements to remove from and to insert into a sequence to get the other.

    Myers 1986: the furthest point of each diagonal for each number of edits. Beyond :data:`MOST` edits, all
    remaining elements are counted.
    """
    start = _common(one, other)
    one, other = one[start:], other[start:]
    end = _common(one[::-1], other[::-1])
    one, other = one[: len(one) - end], other[: len(other) - end]
    reach = {1: 0}
    for edits in range(MOST + 1):
        for diagonal in range(-edits, edits + 1, 2):
            down = diagonal == -edits or (diagonal != edits and reach[diagonal - 1] < reach[diagonal + 1])
            at = reach[diagonal + 1] if down else reach[diagonal - 1] + 1
            at += _common(one[at:], other[at - diagonal :])
            reach[diagonal] = at
            if at >= len(one) and at - diagonal >= len(other):
                surplus = len(one) - len(other)
                return Moved((edits + surplus) // 2, (edits - surplus) // 2)
    return Moved(len(one), len(other))


def _common(one: Sequence[bytes], other: Sequence[bytes]) -> int:
    """Return the length of the common beginning."""
    length = 0
    for a, b in zip(one, other, strict=False):
        if a != b:
            break
        length += 1
    return length
