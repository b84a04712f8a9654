"""Permissions of the files that are kept here: other users of the machine see nothing."""

from __future__ import annotations

import logging
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import BinaryIO, Literal
from urllib.parse import urlsplit
from urllib.request import url2pathname

from tasks.settings import Settings

logger = logging.getLogger(__name__)

_OTHERS = 0o077
_FOLDER_MODE, _FILE_MODE = 0o700, 0o600


def make_folder(folder: Path) -> None:
    """Create a folder and its missing parents, each for its own user alone, whatever the umask."""
    missing = list(takewhile(lambda one: not one.exists(), (folder, *folder.parents)))
    for one in reversed(missing):
        one.mkdir(mode=_FOLDER_MODE, exist_ok=True)


def private_file(path: Path, mode: Literal["wb", "ab"]) -> BinaryIO:
    """Open a file for writing that only its own user may read; a file open to others is closed to them."""
    file = open(path, mode, opener=lambda name, flags: os.open(name, flags, _FILE_MODE))  # noqa: SIM115
    if stat.S_IMODE(os.fstat(file.fileno()).st_mode) & _OTHERS:
        os.fchmod(file.fileno(), _FILE_MODE)
    return file


@dataclass(frozen=True, kw_only=True, slots=True)
class OpenFolder:
    """A folder that other users may enter, read or write."""

    path: Path
    mode: int
    uid: int

    @property
    def remedy(self) -> str:
        return f"chmod -R go= {self.path}"

    def __str__(self) -> str:
        return f"{self.path} has mode {self.mode:04o} and belongs to uid {self.uid}: others may look in"


def open_folders(settings: Settings) -> list[OpenFolder]:
    """Return the folders with private files that others may look into.

    A closed home closes everything in it. Below an open one each folder is checked by itself.
    """
    return list(_open(settings.home, _below(settings))) + list(_open_elsewhere(settings))


def warn_of_open_folders(settings: Settings) -> None:
    """Log each open folder. Closing it is left to its owner: others may have access on purpose."""
    for found in open_folders(settings):
        fields = {"action": "home.open", "path": str(found.path), "mode": f"{found.mode:04o}"}
        logger.warning("%s; mend: %s", found, found.remedy, extra=fields)


def _below(settings: Settings) -> list[Path]:
    private = ("store", "s3", "logs", "runs")
    folders = [settings.prepared_dir, settings.scratch_dir, settings.heartbeats_dir]
    return folders + [settings.home / name for name in private]


def _open(folder: Path, below: list[Path]) -> Iterator[OpenFolder]:
    found = _look(folder)
    if found is not None:
        yield found
        yield from filter(None, map(_look, below))


def _open_elsewhere(settings: Settings) -> Iterator[OpenFolder]:
    """Yield the store's folder if it lies outside the home and is open."""
    url = urlsplit(settings.effective_store_url)
    folder = Path(url2pathname(url.path))
    if url.scheme == "file" and not folder.is_relative_to(settings.home.absolute()):
        yield from _open(folder, [])


def _look(folder: Path) -> OpenFolder | None:
    try:
        found = folder.stat()
    except OSError:
        return None  # there is none yet, or it is closed to this user too
    mode = stat.S_IMODE(found.st_mode)
    return OpenFolder(path=folder, mode=mode, uid=found.st_uid) if mode & _OTHERS else None
