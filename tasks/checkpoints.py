"""Checkpoints of a job in the store: uploaded while the training goes on, the newest kept, gone on from."""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from shutil import rmtree
from typing import Any, NamedTuple

from nss_train.contract import CHECKPOINT_MANIFEST
from nss_train.errors import StoreCorrupt, StoreUnavailable
from tasks import version
from tasks.files import download_verified
from tasks.job import Keys
from tasks.store.base import Store

logger = logging.getLogger(__name__)

_RETRY_S = 1.0


class Kept(NamedTuple):
    """A checkpoint whose manifest is there; attempts have folders of their own, so twins mix no files."""

    step: int
    attempt: int


class CheckpointStore:
    """The checkpoints of one job."""

    def __init__(self, store: Store, keys: Keys) -> None:
        self._store = store
        self._root = keys.checkpoints

    def complete(self) -> list[Kept]:
        """Newest first."""
        names = (key.removeprefix(self._root).split("/") for key in self._store.list(self._root))
        found = {
            Kept(int(step), int(attempt)) for step, attempt, name in names if name == CHECKPOINT_MANIFEST
        }
        return sorted(found, reverse=True)

    def newest(self) -> Kept | None:
        """The newest, usable or not; :class:`~tasks.version.NewerVersion` when this release cannot tell."""
        kept = next(iter(self.complete()), None)
        if kept is not None:
            with suppress(KeyError, ValueError):  # `restore` passes over it
                self._manifest(kept)
        return kept

    def restore(self, folder: Path) -> Kept | None:
        """Download the newest that is whole; one that is not is passed over for the one before it."""
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
                self._store.upload(self._key(kept, path.name), path)
        manifest = json.loads((folder / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))
        document = json.dumps({"version": version.VERSION, **manifest}, indent=1)
        self._store.write(self._key(kept, CHECKPOINT_MANIFEST), document.encode())

    def prune(self, keep: int) -> None:
        """Delete all but the newest ``keep``, and what half an upload left below them."""
        newest = self.complete()[:keep]
        if not newest:
            return
        for key in list(self._store.list(self._root)):
            step, attempt, _ = key.removeprefix(self._root).split("/")
            if Kept(int(step), int(attempt)) < newest[-1]:
                self._store.delete(key)

    def discard(self, attempt: int) -> None:
        """Delete what one attempt uploaded."""
        for key in list(self._store.list(self._root)):
            if int(key.removeprefix(self._root).split("/")[1]) == attempt:
                self._store.delete(key)

    def _download(self, kept: Kept, folder: Path) -> None:
        manifest = self._manifest(kept)
        for name, entry in manifest["files"].items():
            download_verified(self._store, self._key(kept, name), entry["sha256"], folder / name)
        (folder / CHECKPOINT_MANIFEST).write_text(json.dumps(manifest), encoding="utf-8")

    def _manifest(self, kept: Kept) -> dict[str, Any]:
        manifest: dict[str, Any] = json.loads(self._store.read(self._key(kept, CHECKPOINT_MANIFEST)))
        version.check(manifest, what=f"Checkpoint {kept.step}")
        return manifest

    def _key(self, kept: Kept, name: str) -> str:
        return f"{self._root}{kept.step}/{kept.attempt}/{name}"


class Uploader:
    """Uploads an attempt's checkpoints behind the training's back, one at a time, the newest first."""

    def __init__(
        self,
        store: CheckpointStore,
        *,
        attempt: int,
        keep: int,
        on_uploaded: Callable[[], None] = lambda: None,
    ) -> None:
        self._store = store
        self._attempt = attempt
        self._keep = keep
        self._on_uploaded = on_uploaded
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self._closed = threading.Event()
        self._newest = -1
        self._last: Future[None] | None = None

    def offer(self, folder: Path, step: int) -> None:
        """Upload a checkpoint and remove its folder; whatever waits to be uploaded is out of date now."""
        self._newest = step
        self._last = self._pool.submit(self._upload, folder, step)

    def finish(self, timeout_s: float) -> None:
        """Wait until the newest checkpoint is in the store. Raises ``TimeoutError`` and upload errors."""
        if self._last is not None:
            self._last.result(timeout_s)

    def close(self) -> None:
        """Give up what is not uploaded yet. Idempotent."""
        self._closed.set()
        self._pool.shutdown(cancel_futures=True)

    def _upload(self, folder: Path, step: int) -> None:
        try:
            # A store that is away is waited for until there is something newer to upload.
            while step == self._newest and not self._try(folder, step):
                self._closed.wait(_RETRY_S)
                if self._closed.is_set():
                    return
        finally:
            rmtree(folder, ignore_errors=True)

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
