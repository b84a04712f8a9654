"""The numbers as a file writes them, with the numbers that they are trained as."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pyarrow import types

from nss_train.data.comparison.pairs import Hashes, hashes
from nss_train.data.tokenization.distinct_values import json_texts

Mask = npt.NDArray[np.bool_]

NOISE = 1e-12
"""Relative difference of fractions that only concerns a float's last digits: 0.1 + 0.2 equals 0.3."""
_KEPT_DIGITS = 12

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^[+-]?[0-9]+$"
_LEADING_ZERO = r"^\s*[+-]?0[0-9]"
_LEADING_ZEROS = r"^(-?)0+([0-9])"
_LAST_ZEROS = r"\.0*$|(\.[0-9]*?[1-9])0+$"
_ZERO_AT_END = r"\.[0-9]*0\s*$"
_PLUS = r"^\s*\+"
_SPACES = r"^\s|\s$"
_CODE = r"^\s*[0-9]+[eE][0-9]+\s*$"
"""Codes that are numbers only by chance: numbers have a point or a sign (1.0E5, 1e+05)."""
_NEGATIVE_ZERO = r"^\s*-0(\.0*)?\s*$"
_INFINITE = r"(?i)^[+-]?inf(inity)?$"


@dataclass(frozen=True, kw_only=True)
class Numerals:
    """The distinct cells of a numeric column with their trained texts; all of shape (distinct cells,).

    It has no slots: what is asked for more than once is kept.
    """

    raw: pa.Array
    """Cells as the file has them, as text."""
    text: pa.Array
    """Cells as examples have them, as JSON."""
    rows: npt.NDArray[np.int64]
    """Number of equal cells."""

    @classmethod
    def of(cls, raw: pa.Array, trained: pd.Series[Any]) -> Numerals:
        """Return the distinct cells of a column, with the values that they became."""
        encoded = raw.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        present = np.flatnonzero(raw.is_valid().to_numpy(zero_copy_only=False))
        codes = codes[present].astype(np.int64)
        # A dictionary is in the order of first cells: each new code is greater than all before it.
        first = present[codes > np.concatenate([[-1], np.maximum.accumulate(codes)[:-1]])]
        return cls(
            raw=encoded.dictionary.cast(pa.string()),
            text=_written(trained.iloc[first]),
            rows=np.bincount(codes, minlength=len(first)),
        )

    def where(self, mask: Mask) -> Numerals:
        """Return the cells that the mask selects."""
        chosen = pa.array(mask)
        return Numerals(raw=self.raw.filter(chosen), text=self.text.filter(chosen), rows=self.rows[mask])

    @property
    def count(self) -> int:
        """Return the number of cells, repeated ones included."""
        return int(self.rows.sum())

    @property
    def missing(self) -> Mask:
        """Return which cells are trained as null."""
        return _mask(pc.equal(self.text, "null"))

    @property
    def empty(self) -> Mask:
        return _mask(pc.equal(self.raw, ""))

    @property
    def infinite(self) -> Mask:
        """Return which cells are numbers that JSON cannot express."""
        return self.missing & (_match(self.raw, _INFINITE) | _match(self.raw, _NUMBER))

    @property
    def unchanged(self) -> Mask:
        """Return which cells are trained with exactly the same text."""
        return _mask(pc.equal(self.raw, self.text))

    @property
    def zeros(self) -> Mask:
        """Return which cells have a leading zero before another digit."""
        return _match(self.raw, _LEADING_ZERO)

    @property
    def signs(self) -> Mask:
        return _match(self.raw, _PLUS)

    @property
    def spaces(self) -> Mask:
        return _match(self.raw, _SPACES)

    @property
    def codes(self) -> Mask:
        """Return all cells if each is a code with an E between its digits, such as ``3E5``; else none."""
        codes = _match(self.raw, _CODE)
        return codes & codes.all()

    @property
    def ends(self) -> Mask:
        """Return which cells end with a zero after the decimal point."""
        return _match(self.raw, _ZERO_AT_END)

    @property
    def whole(self) -> Mask:
        return _match(self.raw, _WHOLE)

    @property
    def fractions(self) -> Mask:
        """Return which cells are not whole numbers."""
        return ~_match(self._plain_raw, _WHOLE)

    @property
    def floats(self) -> Mask:
        """Return which cells are trained with a decimal point."""
        return _mask(pc.match_substring(self.text, "."))

    @property
    def longer(self) -> Mask:
        """Return which cells are trained with more digits than they have."""
        return _mask(pc.greater(pc.utf8_length(self._plain_text), pc.utf8_length(self._plain_raw)))

    @cached_property
    def _plain_raw(self) -> pa.Array:
        return _plain(self.raw)

    @cached_property
    def _plain_text(self) -> pa.Array:
        return _plain(self.text)

    @cached_property
    def same(self) -> Mask:
        """Return which cells are trained as the same number."""
        raw, text = self._plain_raw, self._plain_text
        same = _mask(pc.equal(raw, text))
        # Equal numbers can only look different if one has a power of ten.
        powers = ~same & (_match(raw, "[eE]") | _match(text, "[eE]"))
        if powers.any():
            chosen = pa.array(powers)
            pairs = zip(raw.filter(chosen).to_pylist(), text.filter(chosen).to_pylist(), strict=True)
            same[powers] = [_number(left) == _number(right) for left, right in pairs]
        return same

    @cached_property
    def trained(self) -> Hashes:
        """Return a hash of each trained text."""
        return hashes(_objects(self.text))

    def keys(self) -> Hashes:
        """Return a hash of each cell: that of its trained text if the number is the same, otherwise its own.

        Whole numbers are the same only if all their digits are, fractions if they differ by at most
        :data:`NOISE`. Negative zero is zero, but two codes for one number are two.
        """
        found, differs = self.trained.copy(), ~self.same | self.zeros | self.codes
        if differs.any():
            found[differs] = _keys_of_others(self.where(differs))
        return found


def _keys_of_others(cells: Numerals) -> Hashes:
    """Return the hashes of cells whose digits differ from those of their trained texts."""
    plain = pc.replace_substring_regex(cells.raw, _LAST_ZEROS, r"\1")
    numbers, trained = _floats(cells.raw), _floats(cells.text)
    fraction = ~_match(plain, _WHOLE) & np.isfinite(numbers)
    fraction &= ~cells.codes
    near = fraction & (np.abs(numbers - trained) <= NOISE * np.abs(numbers))
    near |= _match(cells.raw, _NEGATIVE_ZERO)
    found, own = cells.trained.copy(), ~near
    if own.any():
        rounded = _rounded(np.where(fraction, numbers, 0)[own])
        found[own] = np.where(fraction[own], rounded, hashes(_objects(plain.filter(pa.array(own)))))
    return found


def _written(trained: pd.Series[Any]) -> pa.Array:
    """Return the JSON of each number as examples have it."""
    if trained.dtype.kind in "iu":
        return pa.array(trained.to_numpy()).cast(pa.string())
    if trained.dtype.kind == "f":  # no text of a float has a comma
        whole = trained.astype("float64").to_json(orient="records")
        return pa.array(whole[1:-1].split(",")[: len(trained)], pa.string())
    return pa.array(json_texts(trained.tolist()), pa.string())


def _plain(numbers: pa.Array) -> pa.Array:
    """Return the numbers in their shortest form; powers of ten are kept as they are."""
    bare = pc.ascii_ltrim(pc.ascii_trim_whitespace(numbers), "+")
    bare = pc.replace_substring_regex(bare, _LEADING_ZEROS, r"\1\2")
    return pc.replace_substring_regex(bare, _LAST_ZEROS, r"\1")


def _number(text: str) -> Decimal | str:
    return Decimal(text) if pd.notna(pd.to_numeric(text, errors="coerce")) else text


def _floats(numbers: pa.Array) -> npt.NDArray[np.float64]:
    return np.asarray(pd.to_numeric(pd.Series(_objects(numbers)), errors="coerce"), np.float64)


def _rounded(numbers: npt.NDArray[np.float64]) -> Hashes:
    """Return hashes of numbers rounded to a few significant digits."""
    safe = np.where(numbers == 0, 1.0, np.abs(numbers))
    power = np.floor(np.log10(safe))
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        digits = np.rint(numbers / 10.0**power * 10.0 ** (_KEPT_DIGITS - 1))
    return hashes(digits) ^ (hashes(power) >> np.uint64(1))


def _match(texts: pa.Array, pattern: str) -> Mask:
    return _mask(pc.match_substring_regex(texts, pattern))


def _mask(found: pa.Array) -> Mask:
    return np.asarray(found.to_numpy(zero_copy_only=False), np.bool_)


def _objects(texts: pa.Array) -> npt.NDArray[np.object_]:
    return np.asarray(texts.to_numpy(zero_copy_only=False), object)


def is_text(kind: pa.DataType) -> bool:
    return bool(types.is_string(kind) or types.is_large_string(kind))


def is_numeral(kind: pa.DataType) -> bool:
    """Tell whether cells of a type can be compared here."""
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(number or is_text(kind))
