"""Search for digests of private bytes in what is published, in every form in which they are written."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping

ALGORITHMS = ("md5", "sha1", "sha224", "sha256", "sha384", "sha512", "blake2b", "blake2s", "sha3_256")
LEAST_BYTES = 8
"""Fewest bytes of a digest that are searched for: a shorter one cannot be distinguished from chance."""


def forms(private: bytes) -> Iterator[tuple[str, bytes]]:
    """Yield digests of some bytes as they could be written, cut to :data:`LEAST_BYTES`, and their names."""
    for name in ALGORITHMS:
        digest = hashlib.new(name, private).digest()[: LEAST_BYTES + 1]
        yield f"{name} in hex", digest[:LEAST_BYTES].hex().encode()
        yield f"{name} in HEX", digest[:LEAST_BYTES].hex().upper().encode()
        # Nine bytes are twelve digits; the last of eight alone would depend on what follows.
        yield f"{name} in base64", base64.b64encode(digest)[:10]
        yield f"{name} in base64url", base64.urlsafe_b64encode(digest)[:10]
        yield f"{name} in bytes", digest[:LEAST_BYTES]


def digests_in(published: Mapping[str, bytes], private: Mapping[str, bytes]) -> Iterator[str]:
    """Yield where a digest of private bytes is published; lines and texts of private files count as well."""
    everything = {where: text for where, text in published.items() if text}
    for what, data in private.items():
        for name, form in forms(data):
            yield from (f"{where}: {name} of {what}" for where, text in everything.items() if form in text)


def sizes_in(documents: Mapping[str, object], sizes: Iterable[int]) -> Iterator[str]:
    """Yield where the size of a private file appears as a number in a document."""
    wanted = set(sizes)
    for where, document in documents.items():
        yield from (f"{where}: {number}" for number in _numbers(document) if number in wanted)


def _numbers(document: object) -> Iterator[float]:
    if isinstance(document, bool):
        return
    if isinstance(document, int | float):
        yield document
    elif isinstance(document, Mapping):
        for value in document.values():
            yield from _numbers(value)
    elif isinstance(document, list):
        for value in document:
            yield from _numbers(value)
