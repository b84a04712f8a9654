"""Prepared base models: in the store by digest, and once on each machine.

Workers take turns by flock, which wakes the next one at once; filelock would ask for the lock every 50 ms.
"""

from __future__ import annotations

import errno
import fcntl
import json
import logging
import os
import secrets
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

from nss_train.errors import StoreCorrupt
from tasks.jobs.keys import model_prefix
from tasks.jobs.stage_files import sha256_of
from tasks.permissions import make_folder
from tasks.store.base import Store

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"
_YOUNG_S = 600.0
_DAY_S = 86400.0


class ModelCache:
    """Folders ``root/<digest>``, complete when they exist, shared read-only by the stages of a machine."""

    def __init__(self, root: Path, store: Store) -> None:
        self._root = root
        self._store = store

    def adopt(self, digest: str, folder: Path) -> None:
        """Upload a model that a stage just made (manifest last) and keep the folder as the machine's copy.

        Another worker may have uploaded it since the stage began.
        """
        if not self._store.exists(f"{model_prefix(digest)}/{MANIFEST}"):
            self._upload(digest, folder)
        self._keep(digest, folder)

    def fetch(self, digest: str) -> Path:
        """Return the machine's copy, downloaded and verified if it is not there yet."""
        target = self._root / digest
        make_folder(self._root)
        if self._touch(target):
            logger.info(
                "cache hit: model %s", digest[:12], extra={"action": "model.cache_hit", "digest": digest}
            )
            return target
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".fetch-") as aside:
            folder = Path(aside) / digest
            self._download(digest, folder)
            self._keep(digest, folder)
        return target

    def prune(self, *, free_bytes: float, most_bytes: int | None, in_use: Collection[str]) -> list[str]:
        """Remove copies until the disk has room and they take at most ``most_bytes``; return their digests.

        The least recently used go first. A copy that was used a moment ago may be about to be used again.
        """
        for left in self._root.glob(".*-*"):  # by a worker that was killed
            if _idle_s(left) > _YOUNG_S + _DAY_S:
                shutil.rmtree(left, ignore_errors=True)
        copies = sorted(self._root.glob("[!.]*"), key=_idle_s, reverse=True)
        sizes = {folder: _size(folder) for folder in copies} if most_bytes is not None else {}
        removed = []
        for folder in copies:
            fits = most_bytes is None or sum(sizes.values()) <= most_bytes
            if fits and shutil.disk_usage(self._root).free >= free_bytes:
                break
            if folder.name not in in_use and self._remove(folder):
                sizes.pop(folder, None)
                removed.append(folder.name)
        return removed

    def _touch(self, copy: Path) -> bool:
        """Mark the machine's copy as used now, so that it is kept; return whether there is one."""
        with self._locked(), suppress(FileNotFoundError):
            os.utime(copy)
            return True
        return False

    def _remove(self, copy: Path) -> bool:
        """Remove a copy unless it was used a moment ago; return whether it is gone."""
        # Renamed first: half a model must not be found under its digest. A full disk makes no folder for it.
        gone = self._root / f".gone-{secrets.token_hex(8)}"
        with self._locked():
            if _idle_s(copy) < _YOUNG_S:
                return False
            with suppress(FileNotFoundError):
                copy.rename(gone)
        shutil.rmtree(gone, ignore_errors=True)
        fields = {"action": "model.evicted", "digest": copy.name}
        logger.info("removed this machine's copy of model %s", copy.name[:12], extra=fields)
        return True

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Hold a lock that one worker of this machine has at a time.

        The file exists since the first copy came, so that a full disk need not make it. The folder itself
        would not do: NFS grants this lock only on what is open for writing.
        """
        with (self._root / ".lock").open("ab") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield

    def _upload(self, digest: str, folder: Path) -> None:
        prefix = model_prefix(digest)
        files = sorted(
            p for p in folder.rglob("*") if p.is_file() and not p.is_symlink() and p != folder / MANIFEST
        )
        for path in files:
            self._store.upload(f"{prefix}/{path.relative_to(folder).as_posix()}", path)
        self._store.upload(f"{prefix}/{MANIFEST}", folder / MANIFEST)

    def _download(self, digest: str, folder: Path) -> None:
        """Fetch a model; each file is verified while the next one comes."""
        prefix = model_prefix(digest)
        hashing: dict[str, Future[str]] = {}
        with ThreadPoolExecutor(1) as hasher:
            for key in self._store.list(f"{prefix}/"):
                name = key.removeprefix(f"{prefix}/")
                self._store.download(key, folder / name)
                hashing[name] = hasher.submit(sha256_of, folder / name)
        for name, entry in json.loads((folder / MANIFEST).read_text())["files"].items():
            if name not in hashing or hashing[name].result() != entry["sha256"]:
                raise StoreCorrupt(f"{prefix}/{name} in the store is not what was uploaded.")

    def _keep(self, digest: str, folder: Path) -> None:
        make_folder(self._root)
        try:
            self._place(folder, self._root / digest)
        except OSError as error:
            if error.errno != errno.EXDEV:
                raise
            with tempfile.TemporaryDirectory(dir=self._root, prefix=".keep-") as aside:
                copy = Path(shutil.copytree(folder, Path(aside) / digest))
                self._place(copy, self._root / digest)

    def _place(self, folder: Path, target: Path) -> None:
        """Rename a model to its final path, unless another worker was first; it counts as used now."""
        with self._locked():
            try:
                folder.rename(target)
            except OSError:
                if not target.exists():
                    raise
            os.utime(target)


def _idle_s(folder: Path) -> float:
    """Return the seconds since a folder was last used; 0 when another worker has removed it."""
    try:
        return time.time() - folder.stat().st_mtime
    except FileNotFoundError:
        return 0.0


def _size(folder: Path) -> int:
    """Return the bytes of a folder, as far as no other worker is removing it."""
    found = 0
    for parent, _, names in os.walk(folder):
        for name in names:
            with suppress(FileNotFoundError):
                found += (Path(parent) / name).stat().st_size
    return found
