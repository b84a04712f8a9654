"""Secret coins that decide for each unit whether it is held out, whatever other units are present.

The coin is HMAC-SHA256 under a secret key: without the key it looks random, and it is the same whenever the
unit occurs again, in another job or after a lost machine.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from nss_train.data.private.table import Raw
from nss_train.errors import StageLost

KEY_BYTES = 32
NAME_BYTES = 16
"""Size of a name for a dataset that its owner did not name: 128 bits cannot be guessed."""
_HASH_BYTES = hashlib.sha256().digest_size
_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class HoldoutKey:
    """The secret of a dataset. The keys derived for each purpose reveal nothing of each other (HKDF)."""

    secret: bytes = field(repr=False)

    def __post_init__(self) -> None:
        if len(self.secret) != KEY_BYTES:
            raise StageLost(f"A holdout key has {KEY_BYTES} bytes; this one has {len(self.secret)}.")

    @classmethod
    def draw(cls) -> HoldoutKey:
        """Draw a new key from the operating system."""
        return cls(secret=secrets.token_bytes(KEY_BYTES))

    def holdout(self) -> Coin:
        return Coin(key=self._part(b"holdout"))

    def validation(self) -> Coin:
        return Coin(key=self._part(b"validation"))

    def name(self) -> str:
        """Return a name for an unnamed dataset: random, but the same for the same key."""
        return f"job-{self._part(b'name')[:NAME_BYTES].hex()}"

    def _part(self, purpose: bytes) -> bytes:
        return hkdf(self.secret, info=b"nss-train " + purpose, size=KEY_BYTES)


@dataclass(frozen=True, kw_only=True, slots=True)
class Coin:
    """A biased coin for each identity."""

    key: bytes = field(repr=False)

    def toss(self, identities: Iterable[bytes], *, share: float) -> npt.NDArray[np.bool_]:
        """Tell whether each identity's coin shows the side of probability ``share``; shape (identities,)."""
        # Digests compare as big-endian numbers: heads below share · 2^256.
        below = int(Fraction(share) * 2 ** (8 * _HASH_BYTES))
        if below >= 2 ** (8 * _HASH_BYTES):
            return np.asarray([True for _ in identities], dtype=bool)
        bound, key, digest = below.to_bytes(_HASH_BYTES, "big"), self.key, hmac.digest
        return np.asarray([digest(key, identity, "sha256") < bound for identity in identities], dtype=bool)


def identities(columns: Sequence[tuple[str, Raw]], places: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Yield the identities that coins are tossed for: cells of some columns at each place, in any order.

    Names and cells are prefixed with their lengths, so that no two different records share an identity.
    """
    cells = [_cells(name, raw, places) for name, raw in sorted(columns, key=lambda column: column[0])]
    return map(b"".join, zip(*cells, strict=True))


def _cells(name: str, raw: Raw, places: npt.NDArray[np.int64]) -> Iterator[bytes]:
    """Yield a column's cell at each place, distinct from every other column's."""
    distinct = [_prefixed(name.encode()) + _prefixed(cell) for cell in raw.cells]
    return map(distinct.__getitem__, raw.codes[places].tolist())


def _prefixed(content: bytes) -> bytes:
    return len(content).to_bytes(_LENGTH_BYTES, "big") + content


def hkdf(secret: bytes, *, info: bytes, size: int, salt: bytes = b"") -> bytes:
    """Derive a key by HKDF-SHA256 (RFC 5869): extract, then expand."""
    key = hmac.digest(salt or bytes(_HASH_BYTES), secret, "sha256")
    found, block = b"", b""
    for counter in range(1, -(-size // _HASH_BYTES) + 1):
        block = hmac.digest(key, block + info + bytes([counter]), "sha256")
        found += block
    return found[:size]
