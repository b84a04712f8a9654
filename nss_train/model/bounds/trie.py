"""The bound of SentencePiece's character maps: a double-array trie that leads nowhere outside of itself.

The library reads it without a check, and ends the process's thread where a unit leads beyond the last.
"""

from __future__ import annotations

import struct

_LABEL, _IS_VALUE = 0xFF, 2**31
_VALUE = 2**31 - 1
_CHILDREN = 256
_CONTINUES, _STARTS = 0b1000_0000, 0b1100_0000
"""Bits of a byte within a character of UTF-8, and of the first byte of one that has several."""


def check_trie(units: bytes, texts: bytes) -> None:
    """Raise :class:`ValueError` unless every text can be looked up, and each value begins one of the texts.

    The numbers of units (darts-clone): eight bits of a label, a bit that tells a leaf, and an offset.
    """
    if not units or len(units) % 4:
        raise ValueError("the trie is empty, or no list of numbers")
    trie = struct.unpack(f"<{len(units) // 4}I", units)
    children = _by_parent(trie)
    waiting = [_children_of(trie, 0)]
    seen = set(waiting)
    while waiting:
        for child in children.get(waiting.pop(), ()):
            place = _children_of(trie, child)
            if trie[child] >> 8 & 1:
                _check_value(trie[place] & _VALUE, texts)
            if place not in seen:
                seen.add(place)
                waiting.append(place)


def _by_parent(trie: tuple[int, ...]) -> dict[int, list[int]]:
    """Return the units by the place from where they are counted: each one's label says from where."""
    found: dict[int, list[int]] = {}
    for place, unit in enumerate(trie):
        if not unit & _IS_VALUE and unit & _LABEL:
            found.setdefault(place ^ (unit & _LABEL), []).append(place)
    return found


def _children_of(trie: tuple[int, ...], place: int) -> int:
    """Return from where the children of a unit are counted; all of their places must exist."""
    unit = trie[place]
    first = place ^ ((unit >> 10) << ((unit & 1 << 9) >> 6))
    if first | (_CHILDREN - 1) >= len(trie):
        raise ValueError("the trie leads outside")
    return first


def _check_value(value: int, texts: bytes) -> None:
    if value >= len(texts) or texts[value] & _STARTS == _CONTINUES:
        raise ValueError("a value leads outside the texts, or into a character")
