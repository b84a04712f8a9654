"""The interface of a store."""

from __future__ import annotations

import errno
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Protocol

from nss_train.errors import DiskFull, StoreUnavailable

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class StoreRefuses(StoreUnavailable):
    """The store answers, and does not let this deployment see what was asked for."""


class StoreMisset(StoreUnavailable):
    """The store answers, but not with these settings: only a change of them helps.

    A worker waits all the same: certificates and keys are renewed while jobs are under way.
    """

    exit_code = 2


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """Raise errors of the disk that a download goes to as :class:`DiskFull`."""
    try:
        yield
    except OSError as error:
        if error.errno in _OF_THE_DISK:
            raise DiskFull(f"The worker cannot write to {folder.name}: {error.strerror}.") from error
        raise


class Store(Protocol):
    """Objects by key; keys are ``/``-separated relative paths without ``.`` or ``..`` parts.

    Reads of a missing key raise :class:`KeyError`; a bad key raises
    :class:`~nss_train.errors.ParameterError`; a store that does not answer raises
    :class:`~nss_train.errors.StoreUnavailable`.
    """

    def read(self, key: str) -> bytes:
        """Return the whole object."""

    def write(self, key: str, data: bytes) -> None:
        """Create or replace an object atomically."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object; return ``False``, and change nothing, when it exists already.

        Of any number of racing callers exactly one gets ``True``.
        """

    def upload(self, key: str, path: Path) -> None:
        """Create or replace an object from a file, streaming."""

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file (aside, then renamed), streaming. Parent folders are created."""

    def size(self, key: str) -> int:
        """Return the size of the object in bytes."""

    def exists(self, key: str) -> bool:
        """Tell whether the object exists."""

    def list(self, prefix: str) -> Iterator[str]:
        """Return the keys that start with ``prefix``, recursively, sorted."""

    def children(self, prefix: str) -> Iterator[str]:
        """Return the names directly below a folder ``prefix`` (ends with ``/``), sorted, without slashes."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def attended(self, look: Callable[[], None]) -> Store:
        """Return the same store with ``look`` called between pieces of a transfer; it may raise to end it."""

    def check(self) -> None:
        """Raise :class:`~nss_train.errors.StoreUnavailable` unless the store answers."""
