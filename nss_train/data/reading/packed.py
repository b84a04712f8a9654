"""Compressed files, decompressed no further than the limits of tables allow."""

from __future__ import annotations

import gzip
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePath
from tempfile import TemporaryDirectory
from typing import BinaryIO, cast

import pyarrow as pa

from nss_train.contract import TableLimits
from nss_train.data.reading.faults import unreadable
from nss_train.errors import DataError, Problem
from nss_train.formats import MAGIC, PACKED, PACKED_BYTES, UNKNOWN, Compression, Format, kind_of

_CHUNK_BYTES = 2**20
_DAMAGED = (EOFError, OSError, RuntimeError, zipfile.BadZipFile, zlib.error)
_UNLISTED = "__MACOSX/"
"""Folder that macOS adds to every archive; hidden files, such as ``.DS_Store``, are no tables either."""
_SHOWN_FILES = 3


@contextmanager
def unpacked(path: Path, limits: TableLimits | None) -> Iterator[Path]:
    """Yield the table's plain file: the file itself, or a copy that is deleted after the block."""
    kind = kind_of(path.name)
    if kind is None:
        raise unreadable(path.name, UNKNOWN)
    _check_begin(path, kind.compression, kind.format)
    if kind.compression is None:
        yield path
        return
    with TemporaryDirectory(prefix="nss-train-") as folder:
        plain = Path(folder) / _plain_name(path, kind.compression)
        try:
            _unpack(path, kind.compression, plain, limits)
        except _DAMAGED as error:
            raise unreadable(path.name, f"it cannot be unpacked: {error}") from error
        yield plain


@contextmanager
def open_bytes(path: Path, compression: Compression | None) -> Iterator[BinaryIO]:
    """Yield the decompressed bytes of a file as a stream; for a zip archive, those of its only file."""
    if compression is Compression.ZIP:
        with zipfile.ZipFile(path) as archive, archive.open(_only_file(archive, path.name)) as member:
            yield cast("BinaryIO", member)
    elif compression is Compression.GZIP:
        with gzip.open(path) as packed:
            yield cast("BinaryIO", packed)
    elif compression is Compression.ZSTD:
        with pa.input_stream(str(path), compression="zstd") as stream:
            yield cast("BinaryIO", stream)
    else:
        with path.open("rb") as file:
            yield file


def _check_begin(path: Path, compression: Compression | None, form: Format | None) -> None:
    with path.open("rb") as file:
        head = file.read(PACKED_BYTES)
    if compression is not None and not head.startswith(MAGIC[compression]):
        raise unreadable(path.name, f"not packed as {compression}; check its name")
    if compression is None and form is not Format.XLSX and head.startswith(PACKED):
        raise unreadable(path.name, "the file is compressed; unpack it first, or name it as it is packed")


def _plain_name(path: Path, compression: Compression) -> str:
    if compression is not Compression.ZIP:
        return path.stem
    try:
        with zipfile.ZipFile(path) as archive:
            name = PurePath(_only_file(archive, path.name)).name
    except _DAMAGED as error:
        raise unreadable(path.name, f"it cannot be unpacked: {error}") from error
    kind = kind_of(name)
    if kind is None or kind.compression is not None:
        raise unreadable(path.name, f"it holds {name!r}: {UNKNOWN}")
    return name


def _only_file(archive: zipfile.ZipFile, name: str) -> str:
    files = [
        one.filename
        for one in archive.infolist()
        if not one.is_dir() and not one.filename.startswith(_UNLISTED)
        if not PurePath(one.filename).name.startswith(".")
    ]
    if len(files) != 1:
        shown = f" ({', '.join(map(repr, files[:_SHOWN_FILES]))}, …)" if files else ""
        raise unreadable(name, f"the archive holds {len(files)} files{shown}; give one table alone")
    return files[0]


def _unpack(path: Path, compression: Compression, plain: Path, limits: TableLimits | None) -> None:
    size = 0
    with open_bytes(path, compression) as packed, plain.open("wb") as file:
        while chunk := packed.read(_CHUNK_BYTES):
            size += len(chunk)
            if limits is not None:
                _check_unpacked(path.stat().st_size, size, limits)
            file.write(chunk)


def _check_unpacked(packed: int, size: int, limits: TableLimits) -> None:
    """Raise :class:`DataError` if a limit is exceeded, before more is written."""
    passed = {"file_bytes": limits.file_bytes} if size > limits.file_bytes else {}
    if size > max(limits.small_bytes, limits.expansion * packed):
        passed["expansion"] = limits.expansion
    if passed:
        problems = [
            Problem(
                field=f"table.{name}",
                value=f"more than {limit:,} when unpacked",
                remedy=f"at most {limit:,}; make the table smaller, or ask the operator",
            )
            for name, limit in passed.items()
        ]
        raise DataError("The table is refused.", problems)
