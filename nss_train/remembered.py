"""What a machine remembers from job to job, one document a file: forgetting it costs time, and nothing else.

A document counts only if no other user can have written it: it decides what later jobs are spared.
"""

from __future__ import annotations

import logging
import os
import stat
import tempfile
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

logger = logging.getLogger(__name__)

Document = TypeVar("Document")

_OTHERS_WRITE = 0o022


def recall(file: Path, kind: type[Document]) -> Document | None:
    """Return the document in a file; ``None`` if there is none that can be used, with the reason in the log.

    ``kind`` is a pydantic model or a dataclass.
    """
    try:
        return TypeAdapter(kind).validate_json(_read_own(file))
    except FileNotFoundError:
        return None
    except ValidationError:
        logger.info("%s is not used: it is damaged, or of another release", file)
        return None
    except OSError as error:
        logger.warning("%s is not used: %s", file, error)
        return None


def remember(file: Path, document: object) -> None:
    """Write a document, whole or not at all. A disk that refuses it fails no job."""
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _write(file, TypeAdapter(type(document)).dump_json(document))
    except OSError as error:
        logger.warning("%s is not remembered: %s", file, error)


def _read_own(file: Path) -> bytes:
    """Return the bytes of a file that nobody but this user, or root, can have written."""
    _check_own(file.parent.stat(), file.parent)
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
        _check_own(os.fstat(opened.fileno()), file)
        return opened.read()


def _check_own(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(found.st_mode) & _OTHERS_WRITE:
        raise PermissionError(f"another user can write to {path}; give it to the worker's user alone")


def _write(file: Path, content: bytes) -> None:
    # A name of its own: several processes of a machine may find out the same at once.
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=".aside-")
    try:
        with os.fdopen(descriptor, "wb") as opened:
            opened.write(content)
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise
