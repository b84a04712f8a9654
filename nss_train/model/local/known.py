"""What a machine knows of its base models, for as long as none of their files changes.

It is kept in a folder where only the worker's user writes, never beside the model: who can write into a
model's folder could leave a document there that gives other weights the digest of a model that jobs share.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

from pydantic import Field

from nss_train.contract import Frozen, Request
from nss_train.model.local.snapshot import Identity, Snapshot
from nss_train.remembered import recall, remember


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
        kept = None if self._root is None else recall(self._file(self._root, folder), KnownModel)
        return kept or KnownModel()

    def keep(self, folder: Path, known: KnownModel, now: Snapshot) -> None:
        """Keep what is true of the files in a snapshot, unless one of them is too young to be recognised."""
        if self._root is not None and now.settled:
            remember(self._file(self._root, folder), known)

    @staticmethod
    def _file(root: Path, folder: Path) -> Path:
        return root / f"{hashlib.sha256(os.fsencode(folder.resolve())).hexdigest()[:32]}.json"


def memory_of(request: Request, fetched: Path | None) -> Memory:
    """Return the machine's memory, or none for a model that was fetched into one job's folder."""
    return Memory(Path(request.known) if request.known and fetched is None else None)
