"""The identities of a model's files at one moment: a later change of any of them is noticed."""

from __future__ import annotations

import os
import time
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from nss_train.contract import Frozen
from nss_train.errors import InfrastructureError
from nss_train.model.local.folder import resolved

SETTLED_NS = 2 * 10**9
"""Age at which a file's times tell it from any later content. A file that changes twice within one tick of
its file system's clock keeps its times; git calls such files racily clean (technical/racy-git). The coarsest
clock in use, FAT's, ticks every 2 s."""


class Identity(Frozen):
    """What tells a file, and one content of it, from all others. No user can set ``ctime``."""

    device: int
    inode: int
    bytes: int
    mtime_ns: int
    ctime_ns: int

    @classmethod
    def of(cls, found: os.stat_result) -> Identity:
        return cls(
            device=found.st_dev,
            inode=found.st_ino,
            bytes=found.st_size,
            mtime_ns=found.st_mtime_ns,
            ctime_ns=found.st_ctime_ns,
        )

    @property
    def changed_ns(self) -> int:
        return max(self.mtime_ns, self.ctime_ns)


@dataclass(frozen=True, kw_only=True, slots=True)
class Snapshot:
    """The files of a model, by name, as they were when it was taken."""

    identities: Mapping[str, Identity]
    taken_ns: int

    @classmethod
    def take(cls, files: Iterable[Path]) -> Snapshot:
        taken_ns = time.time_ns()  # first: what changes from now on is not older than the snapshot
        return cls(
            identities={path.name: Identity.of(resolved(path).lstat()) for path in files}, taken_ns=taken_ns
        )

    def without(self, names: Container[str]) -> Snapshot:
        """Return the same moment with fewer files."""
        kept = {name: one for name, one in self.identities.items() if name not in names}
        return Snapshot(identities=kept, taken_ns=self.taken_ns)

    @property
    def settles_in_s(self) -> float:
        """Return the seconds after which a new snapshot would be settled; 0 for a settled one."""
        youngest = max((one.changed_ns for one in self.identities.values()), default=0)
        return max(youngest + SETTLED_NS - self.taken_ns, 0) / 1e9

    @property
    def settled(self) -> bool:
        """Tell whether every later change of a file will change its identity, too."""
        return self.settles_in_s == 0

    def check(self, path: Path, found: os.stat_result) -> None:
        """Raise :class:`InfrastructureError` if a file is another one than in this snapshot."""
        if self.identities.get(path.name) != Identity.of(found):
            raise changed(path)


def changed(path: Path) -> InfrastructureError:
    return InfrastructureError(f"{path.name} of the base model changed while it was read.")
