"""Prepared base models: in the store by digest, and once on each machine."""

from __future__ import annotations

import json
import logging
import shutil
import tempfile
from pathlib import Path

from nss_train.errors import StoreCorrupt
from tasks.files import sha256_of
from tasks.job import model_prefix
from tasks.store.base import Store

logger = logging.getLogger(__name__)

MANIFEST = "manifest.json"


class ModelCache:
    """Folders ``root/<digest>``, complete when they exist, shared read-only by the stages of a machine."""

    def __init__(self, root: Path, store: Store) -> None:
        self._root = root
        self._store = store

    def adopt(self, digest: str, folder: Path) -> None:
        """Upload a model that a stage just made (manifest last) and keep the folder as the machine's copy."""
        prefix = model_prefix(digest)
        files = sorted(p for p in folder.rglob("*") if p.is_file() and p != folder / MANIFEST)
        for path in files:
            self._store.upload(f"{prefix}/{path.relative_to(folder).as_posix()}", path)
        self._store.upload(f"{prefix}/{MANIFEST}", folder / MANIFEST)
        self._keep(digest, folder)

    def fetch(self, digest: str) -> Path:
        """The machine's copy, downloaded and verified if it is not there yet."""
        target = self._root / digest
        if target.exists():
            logger.info(
                "cache hit: model %s", digest[:12], extra={"action": "model.cache_hit", "digest": digest}
            )
            return target
        self._root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=self._root, prefix=".fetch-") as aside:
            folder = Path(aside) / digest
            self._download(digest, folder)
            self._keep(digest, folder)
        return target

    def _download(self, digest: str, folder: Path) -> None:
        prefix = model_prefix(digest)
        for key in self._store.list(f"{prefix}/"):
            self._store.download(key, folder / key.removeprefix(f"{prefix}/"))
        for name, entry in json.loads((folder / MANIFEST).read_text())["files"].items():
            if sha256_of(folder / name) != entry["sha256"]:
                raise StoreCorrupt(f"{prefix}/{name} in the store is not what was uploaded.")

    def _keep(self, digest: str, folder: Path) -> None:
        target = self._root / digest
        self._root.mkdir(parents=True, exist_ok=True)
        try:
            folder.rename(target)
        except OSError:
            # Another worker of this machine was first, or the scratch folder is on another disk.
            if not target.exists():
                aside = Path(tempfile.mkdtemp(dir=self._root, prefix=".keep-"))
                shutil.copytree(folder, aside / digest)
                (aside / digest).rename(target)
                aside.rmdir()
