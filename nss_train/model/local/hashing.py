"""The digests of a model's files: each file is hashed once, and again only after it changed."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from nss_train.model.local.copying import threads_for
from nss_train.model.local.folder import open_plain
from nss_train.model.local.known import KnownFile, KnownModel, Memory
from nss_train.model.local.snapshot import Snapshot
from nss_train.model.local.source import ModelSource

MOST_ADAPTERS = 1_000
"""Shapes of adapters that are remembered of a model, the latest: who submits jobs chooses them."""


def learn(source: ModelSource, memory: Memory, *, adapters: Mapping[str, int] | None = None) -> KnownModel:
    """Return what is known of a checked model, with the digest of every file; remember it.

    ``adapters`` are those that fit it, in addition. Raises :class:`InfrastructureError` if a file is not
    the one that was checked.
    """
    known = memory.recall(source.folder, source.seen)
    new = [path for path in source.files if path.name not in known.files]
    learned = KnownModel(
        files=known.files | hash_files(new, source.seen),
        checked=source.checked_by,
        adapters=dict([*known.adapters.items(), *(adapters or {}).items()][-MOST_ADAPTERS:]),
    )
    source.check_unchanged()
    if learned != known:
        memory.keep(source.folder, learned, source.seen)
    return learned


def hash_files(files: Sequence[Path], seen: Snapshot) -> dict[str, KnownFile]:
    """Return the digests of files as they were seen; raise :class:`InfrastructureError` if one changed."""
    with threads_for(files) as threads:
        return dict(
            zip(
                (path.name for path in files), threads.map(lambda path: _hash(path, seen), files), strict=True
            )
        )


def _hash(path: Path, seen: Snapshot) -> KnownFile:
    with open_plain(path) as file:
        sha256 = hashlib.file_digest(file, "sha256").hexdigest()
        seen.check(path, os.fstat(file.fileno()))
    return KnownFile(identity=seen.identities[path.name], sha256=sha256)
