"""The headers of safetensors files, checked before any tensor is read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeGuard

from nss_train.model.local.folder import BadDocument, open_plain, parse_object

SINGLE = "model.safetensors"
INDEX = "model.safetensors.index.json"
HEADER_BYTES = 16 * 2**20
"""Largest header in bytes; that of 50,000 tensors has 6 MB."""
_LENGTH_BYTES = 8


@dataclass(frozen=True, kw_only=True, slots=True)
class Weights:
    """The contents of a model's weight files, and what is wrong with them."""

    tensors: int
    bytes_there: int
    faults: tuple[str, ...]


def read_headers(folder: Path, names: list[str]) -> Weights:
    """Read the header of each file."""
    tensors = bytes_there = 0
    faults = []
    for name in names:
        try:
            header, size = _header(folder / name)
            faults += [f"{name}: {fault}" for fault in _faults(header, size)][:1]
            tensors, bytes_there = tensors + len(header), bytes_there + size
        except (BadDocument, OSError) as error:
            faults.append(f"{name} is no safetensors file: {error}")
    return Weights(tensors=tensors, bytes_there=bytes_there, faults=tuple(faults))


def _header(path: Path) -> tuple[dict[str, Any], int]:
    """Return the header without its metadata, and the number of bytes after it."""
    with open_plain(path) as file:
        length = int.from_bytes(file.read(_LENGTH_BYTES), "little")
        if length > HEADER_BYTES:
            raise BadDocument(f"its header has {length:,} bytes; {HEADER_BYTES:,} are allowed")
        header = parse_object(file.read(length), "its header")
        rest = path.stat().st_size - _LENGTH_BYTES - length
    header.pop("__metadata__", None)
    return header, rest


def _faults(header: Mapping[str, object], size: int) -> Iterator[str]:
    for name, tensor in header.items():
        offsets = tensor.get("data_offsets") if isinstance(tensor, Mapping) else None
        if not _is_range(offsets) or not 0 <= offsets[0] <= offsets[1] <= size:
            yield f"the file ends before {name[:100]}, or does not say where it is"


def _is_range(offsets: object) -> TypeGuard[list[int]]:
    return isinstance(offsets, list) and [type(one) for one in offsets] == [int, int]
