"""Copies of a model's files, whose bytes are those that were checked and hashed."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from io import BufferedReader, BufferedWriter
from pathlib import Path

from nss_train.model.local.folder import open_plain
from nss_train.model.local.snapshot import Snapshot, changed

_PIECE_BYTES = 2**30
_THREADS = 4
"""Files that are copied or hashed at a time. A core hashes 0.8 to 1.3 GB/s; few disks are as fast as four."""


def threads_for(files: Sequence[Path]) -> ThreadPoolExecutor:
    """Return threads for the files: reading, copying and hashing need no interpreter."""
    return ThreadPoolExecutor(max(1, min(_THREADS, len(files), len(os.sched_getaffinity(0)))))


def copy_files(files: Sequence[Path], folder: Path, *, seen: Snapshot) -> None:
    """Copy a model's files as they were seen; raise :class:`InfrastructureError` if one changed since.

    A copy is the model's own: a hard link would spare its bytes, but who writes into the original later,
    or cuts it short, would change a model under its digest, and a training that has it mapped.
    """
    with threads_for(files) as threads:
        for done in [threads.submit(_copy_plain, path, folder / path.name, seen) for path in files]:
            done.result()


def _copy_plain(path: Path, target: Path, seen: Snapshot) -> None:
    with open_plain(path) as source, target.open("wb") as copy:
        _copy_bytes(source, copy)
        copy.flush()
        found = os.fstat(source.fileno())
        seen.check(path, found)
        if os.fstat(copy.fileno()).st_size != found.st_size:
            raise changed(path)


def _copy_bytes(source: BufferedReader, copy: BufferedWriter) -> None:
    """Let the kernel copy, which shares the blocks where the file system can (XFS, Btrfs); else do it here.

    Either file's offset is where the kernel stopped, so the second way goes on from there.
    """
    try:
        while os.copy_file_range(source.fileno(), copy.fileno(), _PIECE_BYTES):
            pass
    except OSError:  # another file system, or none that can: if it is the disk, the next line says so, too
        shutil.copyfileobj(source, copy, 2**20)
