"""A job's table on its way into the store and out of it. Standard library only: clients have no pandas."""

from __future__ import annotations

import csv
from collections import Counter
from pathlib import Path, PurePosixPath

from nss_train.errors import DataError, ParameterError, Problem
from tasks.files import download_verified, sha256_of
from tasks.job import JobRequest, Keys, Table
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.open import open_bucket

FORMATS = (".csv", ".parquet", ".jsonl", ".json")
_SNIFFED_BYTES = 65536


def check_table_file(path: Path) -> None:
    """Raise :class:`DataError` for what a glance at the file shows; the rest is found by prepare_data."""
    problem = _glance(path)
    if problem is not None:
        field, value, remedy = problem
        raise DataError("The table cannot be read.", [Problem(field=field, value=value, remedy=remedy)])


def _glance(path: Path) -> tuple[str, object, str] | None:
    if not path.is_file():
        return "table", str(path), "no such file; give the path of a CSV, Parquet or JSON Lines file"
    if path.suffix.lower() not in FORMATS:
        return "table", str(path), f"unknown format; the name must end in one of {', '.join(FORMATS)}"
    with path.open("rb") as file:
        head = file.read(_SNIFFED_BYTES)
    if not head.strip():
        return "table", str(path), "the file is empty; a table needs a header and at least two rows"
    if path.suffix.lower() == ".parquet":
        return (
            None
            if head[:4] == b"PAR1"
            else ("table", str(path), "not a Parquet file; check its name or export")
        )
    if b"\0" in head:
        return (
            "table",
            str(path),
            "binary content, not text; check the file's name or export it as UTF-8 text",
        )
    return _repeated_columns(path) if path.suffix.lower() == ".csv" else None


def _repeated_columns(path: Path) -> tuple[str, object, str] | None:
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as file:
        header = next(csv.reader(file), [])
    repeated = [name for name, count in Counter(header).items() if count > 1]
    return (
        ("columns", repeated, "these column names appear more than once; rename them") if repeated else None
    )


def store_table(path: Path, *, job_id: str, store: Store) -> Table:
    """Put a local table file into the store."""
    sha256 = sha256_of(path)
    store.upload(Keys(job_id).table(sha256), path)
    return Table(name=path.name, sha256=sha256, bytes=path.stat().st_size)


def table_at(uri: str, settings: Settings) -> Table:
    """A table that stays where it is; :class:`ParameterError` unless the operator allows the URI."""
    if not any(uri.startswith(prefix) for prefix in settings.allowed_table_uris) or ".." in uri.split("/"):
        allowed = ", ".join(settings.allowed_table_uris) or "none"
        remedy = f"not below an allowed prefix (allowed: {allowed}); submit a file, or ask the operator"
        raise ParameterError(
            "The table's URI is refused.", [Problem(field="table", value=uri, remedy=remedy)]
        )
    return Table(name=PurePosixPath(uri).name, uri=uri)


def fetch_table(job: JobRequest, folder: Path, *, store: Store, settings: Settings) -> str:
    """Write the job's table into ``folder``; return the file's name there."""
    name = "table" + PurePosixPath(job.table.name).suffix.lower()
    if job.table.uri is None:
        sha256 = str(job.table.sha256)
        download_verified(store, Keys(job.job_id).table(sha256), sha256, folder / name)
    else:
        bucket, _, key = table_at(job.table.uri, settings).uri_path.partition("/")
        try:
            open_bucket(settings, bucket).download(key, folder / name)
        except KeyError as error:
            problem = Problem(field="table", value=job.table.uri, remedy="no such object; check the URI")
            raise DataError("The table cannot be read.", [problem]) from error
    return name
