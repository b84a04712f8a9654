"""Checkpoints of a job in the store: uploaded during the training, the newest kept, resumed from."""

from __future__ import annotations

import json
import logging
import math
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from nss_train.contract import CHECKPOINT_MANIFEST
from nss_train.errors import StoreCorrupt, StoreUnavailable
from tasks.jobs import versioning
from tasks.jobs.keys import Keys
from tasks.jobs.stage_files import download_verified
from tasks.store.base import Store

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class Kept(NamedTuple):
    """A checkpoint whose manifest exists; each attempt has a folder of its own, so that two mix no files."""

    step: int
    attempt: int


class CheckpointStore:
    """The checkpoints of one job; ``private`` ones are where only workers see when they came.

    A private job goes on from those of older releases, too, which kept them with the others.
    """

    def __init__(self, store: Store, keys: Keys, *, private: bool = False) -> None:
        self._store = store
        self._keys = keys
        self._private = private
        self._root = keys.private_checkpoints if private else keys.checkpoints
        self._roots = (keys.private_checkpoints, keys.checkpoints) if private else (keys.checkpoints,)

    def attended(self, look: Callable[[], None]) -> CheckpointStore:
        """Return the same store with ``look`` called between pieces of a transfer; it may raise to end it."""
        return CheckpointStore(self._store.attended(look), self._keys, private=self._private)

    def complete(self) -> list[Kept]:
        """Return the complete checkpoints, newest first."""
        manifests = (kept for kept, key in self._files() if key.endswith(f"/{CHECKPOINT_MANIFEST}"))
        return sorted(set(manifests), reverse=True)

    def newest(self) -> Kept | None:
        """Return the newest checkpoint, usable or not.

        Raises :class:`~tasks.jobs.versioning.NewerVersion` when this release cannot read it.
        """
        kept = next(iter(self.complete()), None)
        if kept is not None:
            with suppress(KeyError, ValueError):  # `restore` skips it
                self._manifest(kept)
        return kept

    def restore(self, folder: Path) -> Kept | None:
        """Download the newest checkpoint that is usable, and return it; others are skipped."""
        for kept in self.complete():
            try:
                self._download(kept, folder)
            except (KeyError, ValueError, StoreCorrupt) as error:
                fields = {"action": "checkpoint.skipped", "step": kept.step}
                logger.warning("checkpoint %d is not usable: %s", kept.step, error, extra=fields)
                rmtree(folder, ignore_errors=True)
            else:
                return kept
        return None

    def upload(self, folder: Path, kept: Kept) -> None:
        """Upload a complete folder, its manifest last."""
        for path in sorted(folder.iterdir()):
            if path.name != CHECKPOINT_MANIFEST:
                self._store.upload(_key(self._root, kept, path.name), path)
        manifest = json.loads((folder / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        document = json.dumps({"version": versioning.VERSION, **manifest}, indent=1)
        self._store.write(_key(self._root, kept, CHECKPOINT_MANIFEST), document.encode())

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep`` checkpoints, and what older partial uploads left."""
        newest = self.complete()[:keep]
        if not newest:
            return
        for kept, key in list(self._files()):
            if kept < newest[-1]:
                self._store.delete(key)

    def discard(self, attempt: int) -> None:
        """Delete what one attempt uploaded."""
        for kept, key in list(self._files()):
            if kept.attempt == attempt:
                self._store.delete(key)

    def _files(self) -> Iterator[tuple[Kept, str]]:
        """Yield the key of each file, and the checkpoint that it belongs to, complete or not."""
        for root in self._roots:
            for key in self._store.list(root):
                step, attempt, _ = key.removeprefix(root).split("/")
                yield Kept(int(step), int(attempt)), key

    def _download(self, kept: Kept, folder: Path) -> None:
        root = self._root_of(kept)
        manifest = self._manifest(kept)
        for name, entry in manifest["files"].items():
            download_verified(self._store, _key(root, kept, name), entry["sha256"], folder / name)
        (folder / CHECKPOINT_MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    def _manifest(self, kept: Kept) -> dict[str, Any]:
        key = _key(self._root_of(kept), kept, CHECKPOINT_MANIFEST)
        manifest: dict[str, Any] = json.loads(self._store.read(key))
        versioning.check(manifest, what=f"Checkpoint {kept.step}")
        return manifest

    def _root_of(self, kept: Kept) -> str:
        *others, last = self._roots
        found = (root for root in others if self._store.exists(_key(root, kept, CHECKPOINT_MANIFEST)))
        return next(found, last)


def _key(root: str, kept: Kept, name: str) -> str:
    return f"{root}{kept.step}/{kept.attempt}/{name}"


class _Closed(Exception):
    """The upload is not needed any more."""


class Uploader:
    """A background thread that uploads an attempt's checkpoints, one at a time, the newest first."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        attempt: int,
        keep: int,
        tick_s: float = 0.5,
        on_uploaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store.attended(self._raise_if_closed)
        self._attempt = attempt
        self._keep = keep
        self._tick_s = tick_s
        self._on_uploaded = on_uploaded
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._closed = threading.Event()
        self._newest = -1
        self._last: Future[None] | None = None

    def offer(self, folder: Path, step: int) -> None:
        """Queue a checkpoint's upload, which also removes its folder; any that still wait are out of date."""
        self._newest = step
        self._last = self._pool.submit(self._upload, folder, step)

    def finish(self, timeout_s: float, look: Callable[[], object] = lambda: None) -> None:
        """Wait until the newest checkpoint is in the store, and call ``look`` each tick, which may raise.

        Raises ``TimeoutError`` and upload errors.
        """
        self._wait(timeout_s, look)
        if self._last is not None:
            self._last.result()

    def close(self, look: Callable[[], object] = lambda: None) -> None:
        """Give up what is not uploaded yet. Idempotent.

        A piece that is on its way is waited for, so that nothing is written afterwards; ``look`` is called
        each tick until then.
        """
        self._closed.set()
        self._wait(math.inf, look)
        self._pool.shutdown()

    def _wait(self, timeout_s: float, look: Callable[[], object]) -> None:
        """Wait until the last upload is done, and with it every earlier one."""
        deadline = time.monotonic() + timeout_s
        while self._last is not None and not wait([self._last], self._tick_s).done:
            if time.monotonic() >= deadline:
                raise TimeoutError(f"checkpoint {self._newest} is not uploaded after {timeout_s:.0f} s")
            look()

    def _raise_if_closed(self) -> None:
        if self._closed.is_set():
            raise _Closed

    def _upload(self, folder: Path, step: int) -> None:
        try:
            self._keep_trying(folder, step)
        except _Closed:
            fields = {"action": "checkpoint.given_up", "step": step}
            logger.info("checkpoint %d is not needed in the store any more", step, extra=fields)
        finally:
            rmtree(folder, ignore_errors=True)

    def _keep_trying(self, folder: Path, step: int) -> None:
        """Upload a checkpoint; retry while the store is unavailable and nothing newer waits."""
        while step == self._newest:
            self._raise_if_closed()
            if self._try(folder, step):
                return
            self._closed.wait(_RETRY_S)

    def _try(self, folder: Path, step: int) -> bool:
        try:
            self._store.upload(folder, Kept(step, self._attempt))
            self._store.prune(self._keep)
        except StoreUnavailable:
            logger.warning("checkpoint %d is not uploaded yet", step, exc_info=True)
            return False
        fields = {"action": "checkpoint.uploaded", "step": step}
        logger.info("checkpoint %d is in the store", step, extra=fields)
        self._on_uploaded()
        return True
