"""What a machine knows of its base models, for as long as none of their files changes.

It is kept in a folder where only the worker's user writes, never beside the model: who can write into a
model's folder could leave a document there that gives other weights the digest of a model that jobs share.
"""

from __future__ import annotations

import hashlib
import logging
import os
import stat
import tempfile
from pathlib import Path

from pydantic import Field, ValidationError

from nss_train.contract import Frozen, Request
from nss_train.model.local.snapshot import Identity, Snapshot

logger = logging.getLogger(__name__)

_OTHERS_WRITE = 0o022


class KnownFile(Frozen):
    """The digest of a file that had this identity."""

    identity: Identity
    sha256: str


class KnownModel(Frozen):
    """The content of ``<digest of the folder's path>.json``."""

    files: dict[str, KnownFile] = Field(default_factory=dict)
    checked: str = ""
    """The rules by which the files' contents were found sound; empty: they were not checked."""
    adapters: dict[str, int] = Field(default_factory=dict)
    """Parameters of the adapters that fit the model, by a digest of their shape."""

    @property
    def digests(self) -> dict[str, str]:
        return {name: file.sha256 for name, file in self.files.items()}


class Memory:
    """The documents about base models in a folder; without one, nothing is remembered."""

    def __init__(self, root: Path | None) -> None:
        self._root = root

    def recall(self, folder: Path, now: Snapshot) -> KnownModel:
        """Return what still holds for the files of a model: digests of those that are unchanged.

        The rest holds only if no file changed, came or went.
        """
        kept = self.recorded(folder)
        files = {name: file for name, file in kept.files.items() if now.identities.get(name) == file.identity}
        unchanged = files.keys() == kept.files.keys() == now.identities.keys()
        return kept if unchanged else KnownModel(files=files)

    def recorded(self, folder: Path) -> KnownModel:
        """Return what is on record of a model, whether or not its files are still the same."""
        if self._root is None:
            return KnownModel()
        file = self._file(self._root, folder)
        try:
            return KnownModel.model_validate_json(_read_own(file))
        except FileNotFoundError:
            return KnownModel()
        except (OSError, ValidationError) as error:
            logger.warning("what is known of %s is not used: %s", folder.name, _reason(error))
            return KnownModel()

    def keep(self, folder: Path, known: KnownModel, now: Snapshot) -> None:
        """Keep what is true of the files in a snapshot, unless one of them is too young to be recognised.

        A disk that refuses it costs the next job some seconds, and this one nothing.
        """
        if self._root is None or not now.settled:
            return
        try:
            self._root.mkdir(mode=0o700, parents=True, exist_ok=True)
            _write(self._file(self._root, folder), known.model_dump_json())
        except OSError as error:
            logger.warning("what is known of %s is not kept: %s", folder.name, _reason(error))

    @staticmethod
    def _file(root: Path, folder: Path) -> Path:
        return root / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"


def memory_of(request: Request, fetched: Path | None) -> Memory:
    """Return the machine's memory, or none for a model that was fetched into one job's folder."""
    return Memory(Path(request.known) if request.known and fetched is None else None)


def _read_own(file: Path) -> bytes:
    """Return the bytes of a file that nobody but this user, or root, can have written."""
    _check_own(file.parent.stat(), file.parent)
    with os.fdopen(os.open(file, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC), "rb") as opened:
        _check_own(os.fstat(opened.fileno()), file)
        return opened.read()


def _check_own(found: os.stat_result, path: Path) -> None:
    if found.st_uid not in (os.geteuid(), 0) or stat.S_IMODE(found.st_mode) & _OTHERS_WRITE:
        raise PermissionError(f"another user can write to {path}; give it to the worker's user alone")


def _write(file: Path, text: str) -> None:
    descriptor, aside = tempfile.mkstemp(dir=file.parent, prefix=".aside-")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as opened:
            opened.write(text)
        Path(aside).replace(file)
    except BaseException:
        Path(aside).unlink(missing_ok=True)
        raise


def _reason(error: OSError | ValidationError) -> str:
    return "it is damaged, or of another release" if isinstance(error, ValidationError) else str(error)
