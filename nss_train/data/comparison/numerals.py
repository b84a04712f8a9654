"""Numbers as a file writes them, beside the numbers that are trained of them."""

from __future__ import annotations

from dataclasses import dataclass
from decimal import Decimal
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
"""Relative difference of fractions that is no more than a float's last digits: 0.1 + 0.2 is 0.3."""
_KEPT_DIGITS = 12

_NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
_WHOLE = r"^[+-]?[0-9]+$"
_LEADING_ZERO = r"^\s*[+-]?0[0-9]"
_LEADING_ZEROS = r"^(-?)0+([0-9])"
_LAST_ZEROS = r"\.0*$|(\.[0-9]*?[1-9])0+$"
_ZERO_AT_END = r"\.[0-9]*0\s*$"
_PLUS = r"^\s*\+"
_INFINITE = r"(?i)^[+-]?inf(inity)?$"


@dataclass(frozen=True, kw_only=True, slots=True)
class Numerals:
    """Distinct cells of a numeric column, each with what is trained of it; all of shape (distinct cells,)."""

    raw: pa.Array
    """As the file has them, as text."""
    text: pa.Array
    """As examples have them, as JSON."""
    rows: npt.NDArray[np.int64]
    """How many cells are like it."""

    @classmethod
    def of(cls, raw: pa.Array, trained: pd.Series[Any]) -> Numerals:
        """Distinct ones of some cells and the rows that they became."""
        encoded = raw.dictionary_encode()
        codes = encoded.indices.to_numpy(zero_copy_only=False)
        present = np.flatnonzero(raw.is_valid().to_numpy(zero_copy_only=False))
        codes = codes[present].astype(np.int64)
        first = np.zeros(len(encoded.dictionary), np.int64)
        first[codes[::-1]] = present[::-1]
        return cls(
            raw=encoded.dictionary.cast(pa.string()),
            text=_written(trained.iloc[first]),
            rows=np.bincount(codes, minlength=len(first)),
        )

    def where(self, mask: Mask) -> Numerals:
        """Some of them."""
        chosen = pa.array(mask)
        return Numerals(raw=self.raw.filter(chosen), text=self.text.filter(chosen), rows=self.rows[mask])

    @property
    def count(self) -> int:
        """Their cells."""
        return int(self.rows.sum())

    @property
    def missing(self) -> Mask:
        """Those that are trained as null."""
        return _mask(pc.equal(self.text, "null"))

    @property
    def empty(self) -> Mask:
        return _mask(pc.equal(self.raw, ""))

    @property
    def infinite(self) -> Mask:
        """Those that JSON has no number for."""
        return self.missing & (_match(self.raw, _INFINITE) | _match(self.raw, _NUMBER))

    @property
    def unchanged(self) -> Mask:
        """Those that are trained to the letter."""
        return _mask(pc.equal(self.raw, self.text))

    @property
    def zeros(self) -> Mask:
        """Those that begin with a zero that says something."""
        return _match(self.raw, _LEADING_ZERO)

    @property
    def signs(self) -> Mask:
        return _match(self.raw, _PLUS)

    @property
    def ends(self) -> Mask:
        """Those that end with a zero behind the point."""
        return _match(self.raw, _ZERO_AT_END)

    @property
    def whole(self) -> Mask:
        return _match(self.raw, _WHOLE)

    @property
    def fractions(self) -> Mask:
        """Those that say more than a whole number."""
        return ~_match(_plain(self.raw), _WHOLE)

    @property
    def floats(self) -> Mask:
        """Those that are trained with a point."""
        return _mask(pc.match_substring(self.text, "."))

    @property
    def longer(self) -> Mask:
        """Those that are trained with more digits than they have."""
        return _mask(pc.greater(pc.utf8_length(_plain(self.text)), pc.utf8_length(_plain(self.raw))))

    @property
    def same(self) -> Mask:
        """Those whose number is the one that is trained."""
        raw, text = _plain(self.raw), _plain(self.text)
        same = _mask(pc.equal(raw, text))
        # Only a power of ten can hide that two numbers are the same.
        powers = ~same & (_match(raw, "[eE]") | _match(text, "[eE]"))
        if powers.any():
            chosen = pa.array(powers)
            pairs = zip(raw.filter(chosen).to_pylist(), text.filter(chosen).to_pylist(), strict=True)
            same[powers] = [_number(left) == _number(right) for left, right in pairs]
        return same

    def trained(self) -> Hashes:
        """A hash of what is trained of each."""
        return hashes(_objects(self.text))

    def keys(self) -> Hashes:
        """A hash of each, the same for those that say the same; of what is trained, where that says it too.

        Whole numbers say the same only if all their digits are the same, fractions if they differ by
        :data:`NOISE` at most.
        """
        plain = _objects(pc.replace_substring_regex(self.raw, _LAST_ZEROS, r"\1"))
        numbers, trained = _floats(self.raw), _floats(self.text)
        fraction = ~_match(pa.array(plain, pa.string()), r"^[+-]?[0-9]+$") & np.isfinite(numbers)
        near = np.abs(numbers - trained) <= NOISE * np.abs(numbers)
        own = np.where(fraction, _rounded(np.where(fraction, numbers, 0)), hashes(plain))
        return np.where((self.same & ~self.zeros) | (fraction & near), self.trained(), own)


def _written(trained: pd.Series[Any]) -> pa.Array:
    """JSON of each number as it stands in an example."""
    if trained.dtype.kind in "iu":
        return pa.array(trained.to_numpy()).cast(pa.string())
    return pa.array(json_texts(trained.tolist()), pa.string())


def _plain(numbers: pa.Array) -> pa.Array:
    """The same numbers in their shortest form, those with powers of ten as they are."""
    bare = pc.ascii_ltrim(pc.ascii_trim_whitespace(numbers), "+")
    bare = pc.replace_substring_regex(bare, _LEADING_ZEROS, r"\1\2")
    return pc.replace_substring_regex(bare, _LAST_ZEROS, r"\1")


def _number(text: str) -> Decimal | str:
    return Decimal(text) if pd.notna(pd.to_numeric(text, errors="coerce")) else text


def _floats(numbers: pa.Array) -> npt.NDArray[np.float64]:
    return np.asarray(pd.to_numeric(pd.Series(_objects(numbers)), errors="coerce"), np.float64)


def _rounded(numbers: npt.NDArray[np.float64]) -> Hashes:
    """Hashes of numbers to a few significant digits."""
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
    """Whether cells of a type can be compared here."""
    number = types.is_integer(kind) or types.is_floating(kind) or types.is_decimal(kind)
    return bool(number or is_text(kind))
