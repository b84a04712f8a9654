"""Files of an artifact: written aside, synced and renamed; read with errors that name the file."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path
from typing import Any

from nss_train.errors import DataError, Problem


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def write_aside(path: Path, content: bytes, *, mode: int = 0o666) -> None:
    """Write ``content`` so that ``path`` is either unchanged (or absent), or complete and on disk.

    The umask applies to ``mode``, which the file has from its first byte on.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    aside.unlink(missing_ok=True)
    with os.fdopen(os.open(aside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "wb") as file:
        file.write(content)
    _settle(aside, path)


def copy_aside(source: Path, path: Path) -> None:
    """Copy a file's bytes (not its times or modes) with the same guarantee as :func:`write_aside`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    aside = path.with_name(f".{path.name}.aside")
    shutil.copyfile(source, aside)
    _settle(aside, path)


def write_json(path: Path, document: object) -> None:
    """Write JSON as NSS does: indent 4, ASCII only, no newline at the end, keys in the given order."""
    write_aside(path, json.dumps(document, indent=4).encode("ascii"))


def read_json(path: Path) -> Any:
    """Return the document in ``path``; raise :class:`DataError` if it is missing or is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        remedy = "name a complete run folder, as `fetch` leaves it"
        problem = Problem(field=path.name, value=str(path), remedy=remedy)
        raise DataError(f"Cannot read {path.name}: {error}", [problem]) from error


def _settle(aside: Path, path: Path) -> None:
    with aside.open("rb") as file:
        os.fsync(file.fileno())
    aside.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
