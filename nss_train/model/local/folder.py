"""Safe access to the files of an untrusted model folder: links, devices, huge or odd JSON."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

from nss_train.model_files import DOCUMENT_BYTES, is_read

FOLDER_ENTRIES = 10_000
"""Most files and folders that are listed; a published model has fewer than 300."""
VALUES = 4_000_000
"""Most values of a JSON document, at about 70 bytes each; Gemma 3's tokenizer.json has 1.4 million."""


class BadDocument(ValueError):
    """A JSON document that is refused; the message says why."""


def model_files(folder: Path, *, trusted: bool) -> list[Path]:
    """Return the files of a folder that are part of a model, sorted; no others are opened."""
    return sorted(path for path in folder.iterdir() if is_read(path.name, trusted=trusted))


def file_faults(folder: Path, *, trusted: bool) -> Iterator[str]:
    """Yield why files are refused: each must be a plain file of the folder, of limited size."""
    for path in model_files(folder, trusted=trusted):
        fault = _fault(path)
        if fault:
            yield f"{path.name} {fault}"


def _fault(path: Path) -> str:
    try:
        found = resolved(path).lstat()
    except OSError:
        return "is a link that leads out of the folder, or nowhere; put the file itself there"
    if not stat.S_ISREG(found.st_mode):
        return "is no plain file; remove it"
    if found.st_nlink > 1 and found.st_uid != path.parent.stat().st_uid:
        return "is a hard link to a file of another user; put a copy there"
    most = DOCUMENT_BYTES.get(path.name)
    return f"has {found.st_size:,} bytes; {most:,} are allowed" if most and found.st_size > most else ""


def resolved(path: Path) -> Path:
    """Return the plain path of a model's file; raise :class:`OSError` for a link that leads elsewhere.

    The hub's cache is the exception: there ``snapshots/<commit>/<file>`` links to ``blobs/<digest>`` of the
    same model, so files are stored once. A user who can write there can also write to the folder.
    """
    if not path.is_symlink():
        return path
    snapshots = path.parent.resolve().parent
    target = Path(os.path.realpath(path, strict=True))  # Path.resolve raises another error for a loop
    if snapshots.name == "snapshots" and target.parent == snapshots.parent / "blobs":
        return target
    raise OSError(f"{path.name} leads out of its folder")


def open_plain(path: Path) -> BufferedReader:
    """Open a model's file for reading, safely even if it is being replaced by a link or a device."""
    descriptor = os.open(resolved(path), os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    file = os.fdopen(descriptor, "rb")
    if stat.S_ISREG(os.fstat(descriptor).st_mode):
        return file
    file.close()
    raise OSError(f"{path.name} is no plain file")


def read_object(path: Path) -> dict[str, Any]:
    """Return the JSON object in a file; raise :class:`BadDocument` if invalid, too large or ambiguous."""
    with open_plain(path) as file:
        return parse_object(file.read(DOCUMENT_BYTES[path.name] + 1), path.name)


def parse_object(data: bytes, name: str) -> dict[str, Any]:
    """Return the JSON object in bytes; see :func:`read_object`."""
    if data.count(b",") + data.count(b"[") + data.count(b"{") > VALUES:
        raise BadDocument(f"{name} has more than {VALUES:,} values")
    try:
        found = json.loads(data.decode("utf-8"), object_pairs_hook=_once, parse_constant=_no_constant)
    except BadDocument as error:
        raise BadDocument(f"{name} {error}") from error
    except (ValueError, RecursionError) as error:
        raise BadDocument(f"{name} is not a JSON object") from error
    if not isinstance(found, dict):
        raise BadDocument(f"{name} is not a JSON object")
    return found


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the object; refuse duplicate names, which other libraries would read differently."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise BadDocument("says something twice")
    return found


def _no_constant(name: str) -> NoReturn:
    raise BadDocument(f"holds {name}, which is no number")


def names_below(folder: Path) -> list[str]:
    """Return all file names below the folder, links not followed; raise :class:`BadDocument` for too many."""
    found: list[str] = []
    for parent, folders, names in os.walk(folder):
        found += [str(Path(parent, name).relative_to(folder)) for name in names]
        if len(found) + len(folders) > FOLDER_ENTRIES:
            raise BadDocument(f"the folder has more than {FOLDER_ENTRIES:,} files")
    return sorted(found)
