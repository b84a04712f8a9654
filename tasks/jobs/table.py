"""A job's table on its way into the store and out of it. Standard library only: clients have no pandas."""

from __future__ import annotations

import csv
import secrets
from collections import Counter
from collections.abc import Callable
from functools import partial
from pathlib import Path, PurePosixPath
from typing import TypeAlias

from nss_train.contract import TableLimits
from nss_train.errors import DataError, ParameterError, Problem, public_facts
from nss_train.formats import (
    MAGIC,
    PACKED,
    PRIVATE,
    PRIVATE_ONLY,
    UNKNOWN,
    UTF_16,
    Compression,
    Format,
    Kind,
    kind_of,
    missing,
    suffix_of,
)
from tasks.jobs.documents import JobRequest, Table, TableFile
from tasks.jobs.repository import JobRepository
from tasks.jobs.stage_files import download_verified, sha256_of
from tasks.settings import Settings
from tasks.store.base import Store, StoreRefuses
from tasks.store.keys import check_key
from tasks.store.open import open_bucket

_SNIFFED_BYTES = 65536
_HIDDEN = "table"


def check_table_file(path: Path, limits: TableLimits | None = None) -> None:
    """Raise :class:`DataError` for what a glance at the file shows; prepare_data finds the rest."""
    problem = _glance(path, limits or TableLimits())
    if problem is not None:
        field, value, remedy = problem
        raise DataError("The table cannot be read.", [Problem(field=field, value=value, remedy=remedy)])


def check_private_name(name: str) -> None:
    """Raise :class:`DataError` for a table whose format a private job does not read."""
    suffix = suffix_of(name)
    if suffix not in PRIVATE:
        problem = Problem(field="table", value=suffix, remedy=PRIVATE_ONLY)
        raise DataError("The table cannot be read.", [problem], public=True)


Fault: TypeAlias = tuple[str, object, str]
"""Field, value and remedy of a fault."""


def _glance(path: Path, limits: TableLimits) -> Fault | None:
    if not path.is_file():
        return "table", str(path), f"{missing(path)}; give the path of a CSV, Parquet or JSON Lines file"
    kind = kind_of(path.name)
    if kind is None:
        return "table", str(path), UNKNOWN
    if path.stat().st_size > limits.file_bytes:
        return "table.file_bytes", path.stat().st_size, _too_large(limits)
    with path.open("rb") as file:
        remedy = _content_fault(file.read(_SNIFFED_BYTES), kind)
    if remedy is not None:
        return "table", str(path), remedy
    is_plain = kind.suffix == ".csv" and kind.compression is None
    return _header_fault(path, limits) if is_plain else None


_BEGINNINGS = {Format.PARQUET: b"PAR1", Format.ARROW: b"ARROW1", Format.XLSX: MAGIC[Compression.ZIP]}


def _content_fault(head: bytes, kind: Kind) -> str | None:
    if not head.strip():
        return "the file is empty; a table needs a header and at least two rows"
    if kind.compression is not None:
        is_packed = head.startswith(MAGIC[kind.compression])
        return None if is_packed else f"not packed as {kind.compression}; check its name"
    if kind.format is not Format.XLSX and head.startswith(PACKED):
        return "the file is compressed; unpack it first, or name it as it is packed, such as table.csv.gz"
    if kind.format in _BEGINNINGS:
        is_one = head.startswith(_BEGINNINGS[kind.format])
        return None if is_one else f"not {kind.format}; check its name or export"
    if b"\0" in head and not head.startswith(UTF_16):
        return "binary content, not text; check the file's name or export it as UTF-8 text"
    return None


def _too_large(limits: TableLimits) -> str:
    return f"at most {limits.file_bytes:,} bytes; make the table smaller, or ask the operator"


def _header_fault(path: Path, limits: TableLimits) -> Fault | None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        try:
            header = next(csv.reader(file), [])
        except csv.Error:
            return "table", str(path), "the header is no CSV; a quote may be missing"
    if len(header) > limits.columns:
        return "table.columns", len(header), f"at most {limits.columns:,}; leave some out"
    repeated = [name for name, count in Counter(header).items() if count > 1]
    return (
        ("columns", repeated, "these column names appear more than once; rename them") if repeated else None
    )


def describe_table(path: Path, *, strict: bool) -> Table:
    """Return a local table file as a job names it; for a strictly private one only its format is shown."""
    name = _HIDDEN + suffix_of(path.name) if strict else path.name
    return Table(name=name, input=secrets.token_hex(16))


def upload_table(path: Path, records: JobRepository, name: str) -> TableFile:
    """Upload a table under the random ``name`` of its request; return its description, for workers."""
    key = records.keys.table(name)
    file = TableFile(name=path.name, key=key, sha256=sha256_of(path), bytes=path.stat().st_size)
    records.store.upload(key, path)
    records.put_table(name, file)
    return file


def is_same_file(uploaded: TableFile, path: Path) -> bool:
    """Tell whether a local file is the one that was uploaded."""
    mine = (path.name, sha256_of(path), path.stat().st_size)
    return mine == (uploaded.name, uploaded.sha256, uploaded.bytes)


def is_uri(table: Path | str) -> bool:
    return isinstance(table, str) and "://" in table


def table_at(uri: str, settings: Settings) -> Table:
    """Return a table that stays at its URI; raise :class:`ParameterError` unless the operator allows it."""
    if not any(_is_below(uri, prefix) for prefix in settings.allowed_table_uris):
        allowed = ", ".join(settings.allowed_table_uris) or "none"
        remedy = f"not below an allowed prefix (allowed: {allowed}); submit a file, or ask the operator"
        raise ParameterError(
            "The table's URI is refused.", [Problem(field="table", value=uri, remedy=remedy)]
        )
    if kind_of(PurePosixPath(uri).name) is None:
        problem = Problem(field="table", value=uri, remedy=UNKNOWN)
        raise DataError("The table cannot be read.", [problem])
    return Table(name=PurePosixPath(uri).name, uri=uri)


def _is_below(uri: str, prefix: str) -> bool:
    """Tell whether a URI names an object in a folder; ``s3://a/b`` is the folder ``s3://a/b/`` alone."""
    folder = f"{prefix.rstrip('/')}/"
    try:
        return uri.startswith(folder) and bool(check_key(uri.removeprefix(folder)))
    except ParameterError:
        return False


def fetch_table(
    job: JobRequest,
    stored: TableFile | None,
    folder: Path,
    *,
    store: Store,
    settings: Settings,
    look: Callable[[], None] = lambda: None,
) -> str:
    """Write the job's table into ``folder``; return the file's name there.

    ``stored`` is what was uploaded, ``None`` for a table at a URI. ``look`` is called between the pieces of a
    download from elsewhere. A table is refused here by public facts alone: there is no such object, or it is
    larger than the operator allows; the size of a private table is not reported.
    """
    name = "table" + suffix_of(job.table.name)
    too_large = partial(_check_size, job, limits=settings.table_limits)
    with public_facts():
        if stored is not None:
            too_large(store.size(stored.key))
            download_verified(store, stored.key, stored.sha256, folder / name)
        else:
            _fetch_from(str(job.table.uri), folder / name, too_large, settings=settings, look=look)
    return name


def _fetch_from(
    uri: str, path: Path, check_size: Callable[[int], None], *, settings: Settings, look: Callable[[], None]
) -> None:
    bucket, _, key = table_at(uri, settings).uri_path.partition("/")
    try:
        source = open_bucket(settings, bucket).attended(look)
        check_size(source.size(key))
        source.download(key, path)
    except (KeyError, StoreRefuses) as error:
        # Without the right to list, a service answers that a missing object is forbidden.
        remedy = "no such object, or one that this deployment may not read; check the URI"
        problem = Problem(field="table", value=uri, remedy=remedy)
        raise DataError("The table cannot be read.", [problem]) from error


def _check_size(job: JobRequest, size_bytes: int, *, limits: TableLimits) -> None:
    """Raise :class:`DataError` for a table that is too large, before it fills the worker's disk."""
    if size_bytes > limits.file_bytes:
        shown = None if job.config.strictly_private else size_bytes
        problem = Problem(field="table.file_bytes", value=shown, remedy=_too_large(limits))
        raise DataError(f"The table {(job.table.uri or job.table.name)[:200]} is refused.", [problem])
