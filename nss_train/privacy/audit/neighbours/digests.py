"""A search for published digests of private data; an unkeyed digest is an oracle for guesses."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Iterable, Iterator, Mapping

ALGORITHMS = (
    "md5",
    "sha1",
    "sha224",
    "sha256",
    "sha384",
    "sha512",
    "sha3_256",
    "sha3_512",
    "blake2b",
    "blake2s",
)
BLAKE2B_BYTES = (8, 16, 20, 32)
"""Lengths of BLAKE2b besides the full one: each is a digest of its own."""
SHOWN = 12
"""Characters by which a digest is recognised, truncated or not. Fewer than 48 bits of hex, or 72 of base64,
would occur by chance in a million published characters."""
_HEX = re.compile(rb"[0-9a-fA-F]{%d,}" % SHOWN)
_BASE64 = re.compile(rb"[0-9A-Za-z+/_=-]{%d,}" % SHOWN)


def digests(secret: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield each digest of some bytes with the name of its algorithm."""
    for name in ALGORITHMS:
        yield name, hashlib.new(name, secret, usedforsecurity=False).digest()
    for size in BLAKE2B_BYTES:
        yield f"blake2b of {size} bytes", hashlib.blake2b(secret, digest_size=size).digest()


class DigestScanner:
    """A scanner that finds digests of private pieces in published data."""

    def __init__(self, private: Mapping[str, bytes]) -> None:
        """Compute the digests of ``private``: files, rows and cells by a name for people."""
        self._written: dict[bytes, str] = {}
        self._plain: dict[bytes, str] = {}
        for of, secret in private.items():
            for algorithm, digest in digests(secret):
                self._learn(f"{algorithm} of {of}", digest)

    def find(self, published: Mapping[str, bytes]) -> list[str]:
        """Return which digests occur where; both names and contents of published items are searched."""
        found = set()
        for name, content in published.items():
            for place in (name.encode(), content):
                found |= {f"{digest} in {name}" for digest in self._in(place)}
        return sorted(found)

    def _learn(self, name: str, digest: bytes) -> None:
        written = digest.hex().encode()
        self._written |= {written[:SHOWN]: name, written[-SHOWN:]: name}
        for encode in (base64.b64encode, base64.urlsafe_b64encode):
            self._written[encode(digest)[:SHOWN]] = name
        self._plain[digest[: SHOWN // 2]] = name

    def _in(self, content: bytes) -> Iterator[str]:
        runs = [match.group().lower() for match in _HEX.finditer(content)]
        runs += [match.group() for match in _BASE64.finditer(content)]
        yield from self._known(runs, self._written, SHOWN)
        if content.isascii():
            return
        yield from self._known([content], self._plain, SHOWN // 2)

    @staticmethod
    def _known(runs: Iterable[bytes], known: Mapping[bytes, str], length: int) -> Iterator[str]:
        for run in runs:
            for at in range(len(run) - length + 1):
                if (digest := known.get(run[at : at + length])) is not None:
                    yield digest
