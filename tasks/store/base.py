"""What a store must do."""

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
    """The store answers, and the settings are not those that it wants: nothing but a change of them helps.

    A worker waits all the same: certificates and keys are renewed while jobs are under way.
    """

    exit_code = 2


@contextmanager
def own_disk(folder: Path) -> Iterator[None]:
    """What is wrong with the disk that a download goes to, as :class:`DiskFull`."""
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
        """The whole object."""

    def write(self, key: str, data: bytes) -> None:
        """Create or replace an object atomically."""

    def put_if_absent(self, key: str, data: bytes) -> bool:
        """Create the object; ``False`` (and no change) when it is there already.

        Of any number of racing callers exactly one gets ``True``.
        """

    def upload(self, key: str, path: Path) -> None:
        """Create or replace an object from a file, streaming."""

    def download(self, key: str, path: Path) -> None:
        """Write an object to a file (aside, then renamed), streaming. Parents are made."""

    def size(self, key: str) -> int:
        """Bytes of the object."""

    def exists(self, key: str) -> bool:
        """Whether the object is there."""

    def list(self, prefix: str) -> Iterator[str]:
        """Keys that start with ``prefix``, recursively, sorted."""

    def children(self, prefix: str) -> Iterator[str]:
        """Names directly below the folder ``prefix`` (ends with ``/``), sorted, folders without the slash."""

    def delete(self, key: str) -> None:
        """Remove an object; a missing one is no error."""

    def attended(self, look: Callable[[], None]) -> Store:
        """The same store. ``look`` is called between the pieces of a transfer, and may raise to end it."""

    def check(self) -> None:
        """Raise :class:`~nss_train.errors.StoreUnavailable` unless the store answers."""
