"""Files between a stage's folder and the store: digests, inputs, outputs."""

from __future__ import annotations

import hashlib
from fnmatch import fnmatch
from pathlib import Path

from nss_train.contract import Stage
from nss_train.errors import StoreCorrupt
from tasks.job import JobRequest, Keys, Marker, StoredFile
from tasks.store.base import Store

NEEDED: dict[Stage, dict[Stage, tuple[str, ...]]] = {
    Stage.PREPARE_DATA: {},
    Stage.LOAD_MODEL: {Stage.PREPARE_DATA: ("config.json",)},
    Stage.TRAIN: {Stage.PREPARE_DATA: ("*.json", "*.arrow"), Stage.LOAD_MODEL: ("*",)},
    Stage.SAVE_MODEL: {
        Stage.PREPARE_DATA: ("*.json", "*.csv"),
        Stage.LOAD_MODEL: ("*",),
        Stage.TRAIN: ("*",),
    },
}
"""Which files of which earlier stages a stage reads."""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def download(store: Store, files: tuple[StoredFile, ...], folder: Path, patterns: tuple[str, ...]) -> None:
    """Fetch a stage's committed files that match, each verified by its digest."""
    for file in files:
        if any(fnmatch(file.path, pattern) for pattern in patterns):
            download_verified(store, file.key, file.sha256, folder / file.path)


def download_verified(store: Store, key: str, sha256: str, path: Path) -> None:
    store.download(key, path)
    if sha256_of(path) != sha256:
        path.unlink()
        raise StoreCorrupt(f"{key} in the store is not what was uploaded: its SHA-256 differs.")


def upload(store: Store, keys: Keys, stage: Stage, attempt: int, out: Path) -> tuple[StoredFile, ...]:
    """Put every file of ``out`` below the attempt's key."""
    stored = []
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        key = keys.output(stage, attempt, name)
        store.upload(key, path)
        stored.append(StoredFile(path=name, key=key, sha256=sha256_of(path), bytes=path.stat().st_size))
    return tuple(stored)


def input_digest(job: JobRequest, markers: dict[Stage, Marker]) -> str:
    """SHA-256 over table, config, seed and the digests of all that the stage reads."""
    digest = hashlib.sha256(job.model_dump_json(include={"table", "config", "seed"}).encode())
    for stage, marker in markers.items():
        for file in marker.files:
            digest.update(f"{stage}/{file.path}={file.sha256}\n".encode())
        digest.update((marker.model_digest or "").encode())
    return digest.hexdigest()
