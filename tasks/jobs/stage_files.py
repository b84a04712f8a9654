"""Files between a stage's folder and the store: digests, inputs, outputs."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from fnmatch import fnmatch
from pathlib import Path

from nss_train.contract import Stage
from nss_train.errors import StoreCorrupt
from tasks.jobs.documents import JobRequest, StoredFile, TableFile
from tasks.jobs.gate import Gate
from tasks.jobs.keys import Keys
from tasks.store.base import Store

NEEDED: dict[Stage, dict[Stage, tuple[str, ...]]] = {
    Stage.PREPARE_DATA: {},
    Stage.LOAD_MODEL: {Stage.PREPARE_DATA: ("config.json", "work.json", "privacy.json")},
    Stage.TRAIN: {Stage.PREPARE_DATA: ("*.json", "*.arrow"), Stage.LOAD_MODEL: ("*",)},
    Stage.SAVE_MODEL: {
        Stage.PREPARE_DATA: ("*.json", "*.csv"),
        Stage.LOAD_MODEL: ("*",),
        Stage.TRAIN: ("*",),
    },
}
"""Files of earlier stages that each stage reads, as patterns."""


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


@dataclass(frozen=True, kw_only=True, slots=True)
class Uploaded:
    """The files that an attempt put into the store."""

    published: tuple[StoredFile, ...]
    private: tuple[StoredFile, ...]


def upload(store: Store, keys: Keys, stage: Stage, attempt: int, out: Path, *, gate: Gate) -> Uploaded:
    """Upload every file of ``out`` below the attempt's keys: to the results, or where only workers read."""
    found: dict[bool, list[StoredFile]] = {True: [], False: []}
    for path in sorted(p for p in out.rglob("*") if p.is_file()):
        name = path.relative_to(out).as_posix()
        published = gate.is_published(stage, name)
        key = (keys.output if published else keys.private_output)(stage, attempt, name)
        store.upload(key, path)
        stored = StoredFile(path=name, key=key, sha256=sha256_of(path), bytes=path.stat().st_size)
        found[published].append(stored)
    return Uploaded(published=tuple(found[True]), private=tuple(found[False]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Committed:
    """The outputs of an earlier stage, the private part included."""

    files: tuple[StoredFile, ...]
    model_digest: str | None = None


def input_digest(job: JobRequest, table: TableFile | None, earlier: Mapping[Stage, Committed]) -> str:
    """Return the SHA-256 over table, config, seed and the digests of all that the stage reads."""
    digest = hashlib.sha256(job.model_dump_json(include={"config", "seed"}).encode())
    digest.update((str(job.table.uri) if table is None else table.sha256).encode())
    for stage, made in earlier.items():
        for file in made.files:
            digest.update(f"{stage}/{file.path}={file.sha256}\n".encode())
        digest.update((made.model_digest or "").encode())
    return digest.hexdigest()
