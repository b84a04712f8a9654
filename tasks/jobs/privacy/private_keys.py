"""Secrets from the operating system that are drawn once, before their first use, and kept in the store.

They lie under ``private/``, which only workers may read, and are written into no log, event or output.
"""

from __future__ import annotations

import hmac
import os
import secrets
from pathlib import Path

from nss_train.contract import HOLDOUT_KEY, SKETCH_KEY
from tasks.jobs.documents import JobRequest
from tasks.jobs.keys import Keys
from tasks.jobs.privacy.datasets import DatasetKeys
from tasks.store.base import Store

KEY_BYTES = 32
SKETCH_KEY_OF_DEPLOYMENT = "privacy/_deployment/private/sketch-key"
"""Store key of the sketch key; no dataset's name begins with an underscore."""


def write_keys(folder: Path, request: JobRequest, *, store: Store) -> None:
    """Write the keys that a private prepare_data needs into its ``in``, readable by this user alone."""
    _write(folder / HOLDOUT_KEY, holdout_key(store, request))
    _write(folder / SKETCH_KEY, kept(store, SKETCH_KEY_OF_DEPLOYMENT))


def holdout_key(store: Store, request: JobRequest) -> bytes:
    """Return K, by which units are held out: one for all jobs of a dataset, or a job's own."""
    dataset = request.config.guarantee.dataset
    key = Keys(request.job_id).holdout_key if dataset is None else DatasetKeys(dataset).holdout_key
    return kept(store, key)


def budget_name(store: Store, request: JobRequest) -> str:
    """Return the ledger that a job is charged to; "" for a job that is not private.

    A job that an older release submitted has no name of its own; one is derived from its key, which is
    random.
    """
    if not request.config.dp_enabled:
        return ""
    named = request.config.guarantee.dataset or request.budget_name
    return named or f"job-{hmac.digest(holdout_key(store, request), b'budget name', 'sha256').hex()[:32]}"


def kept(store: Store, key: str) -> bytes:
    """Return the secret under a key of the store, drawn on first use."""
    try:
        return store.read(key)
    except KeyError:
        store.put_if_absent(key, secrets.token_bytes(KEY_BYTES))
        return store.read(key)


def _write(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
        file.write(content)
