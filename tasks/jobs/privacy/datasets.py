"""Datasets whose private jobs are charged: their keys in the store, who owns them, and who may use them.

This module is light, unlike :mod:`tasks.jobs.privacy.ledger`: a client checks before it submits, and may have
no accountant.
"""

from __future__ import annotations

import hmac
import json
import logging
import secrets
from collections.abc import Iterator

from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.dataset_budget import in_words
from nss_train.text.names import is_dataset
from tasks.jobs import versioning
from tasks.jobs.documents import JobRequest
from tasks.jobs.versioning import Versioned
from tasks.store.base import Store, StoreRefuses

logger = logging.getLogger(__name__)

PRIVATE = "private"
"""Folder beside the numbered entries that only workers may read."""
_KEY_OF_TOKEN = b"nss-train dataset token, version 1"


class DatasetKeys:
    """Store keys of one dataset's ledger."""

    def __init__(self, dataset: str) -> None:
        if not is_dataset(dataset):
            remedy = "use up to 63 lower-case letters, digits and inner hyphens"
            problem = Problem(field="dataset", value=dataset[:100], remedy=remedy)
            raise ParameterError("Not a dataset's name.", [problem])
        self.root = f"privacy/{dataset}/"
        self.private = f"{self.root}{PRIVATE}/"
        self.binding = f"{self.private}binding.json"
        self.holdout_key = f"{self.private}key"
        self.sketches = f"{self.private}sketches/"
        self.same_data = f"{self.private}same-data/"
        self.renamed = f"{self.private}renamed"


class Binding(Versioned):
    """``private/binding.json``: the owner of a dataset, and what its budget protects."""

    owner: str
    unit: str
    key: str
    """Key that a job's proof is made with; it follows from the token, which is stored nowhere."""


def read_binding(store: Store, dataset: str) -> Binding | None:
    """Return the owner and the unit of a dataset; ``None`` where no budget fixed them."""
    key = DatasetKeys(dataset).binding
    try:
        return versioning.read(Binding, store.read(key), what=f"The store's {key}")
    except KeyError:
        return None


def bind(store: Store, dataset: str, *, owner: str, unit: str) -> str | None:
    """Fix owner and unit; return the token, shown this once, or ``None`` where they are fixed already."""
    token = _new_token()
    binding = Binding(owner=owner, unit=unit, key=_key_of(token).hex())
    first = store.put_if_absent(DatasetKeys(dataset).binding, _encode(binding))
    return token if first else None


def rotate(store: Store, dataset: str) -> str:
    """Replace a dataset's token; jobs that are past prepare_data continue, others need the new one."""
    held = read_binding(store, dataset)
    if held is None:
        remedy = "it has no owner, and so no token; set a budget with --owner and --unit first"
        raise ParameterError("No token.", [Problem(field="dataset", value=dataset, remedy=remedy)])
    token = _new_token()
    changed = held.model_copy(update={"key": _key_of(token).hex(), "version": versioning.VERSION})
    store.write(DatasetKeys(dataset).binding, _encode(changed))
    return token


def prove(token: str, job_id: str) -> str:
    """Return the proof that the sender of a job holds a dataset's token. It is valid for this job alone."""
    return _proof(_key_of(token), job_id)


def check_access(store: Store, request: JobRequest, *, known_only: bool) -> None:
    """Raise :class:`ParameterError` unless a private job may be charged to the dataset it names.

    A refused attempt charges nothing and locks no one out. Where a client may not read a dataset's private
    documents, the worker decides.
    """
    if not request.config.dp_enabled:
        return
    try:
        problems = list(_access_problems(store, request, known_only=known_only))
    except StoreRefuses:
        logger.info("whether the job may use its dataset is left to the worker", exc_info=True)
        return
    if problems:
        raise ParameterError("The job may not be charged to this dataset.", problems)


def _access_problems(store: Store, request: JobRequest, *, known_only: bool) -> Iterator[Problem]:
    dataset = request.config.guarantee.dataset
    binding = None if dataset is None else read_binding(store, dataset)
    if binding is not None:
        yield from strangers_problems(binding, request)
    elif known_only and (dataset is None or not _has_budget(store, dataset)):
        remedy = "is not known here; ask for `budget set`"
        yield Problem(field="guarantee.dataset", value=dataset, remedy=remedy)


def strangers_problems(binding: Binding, request: JobRequest) -> Iterator[Problem]:
    """Yield why a job may not use a dataset. What it protects is shown to its owner alone."""
    dataset, unit = request.config.guarantee.dataset, request.config.unit
    if request.tenant != binding.owner:
        yield Problem(field="guarantee.dataset", value=dataset, remedy="belongs to another owner")
    elif request.dataset_proof is None:
        remedy = "its token is missing; name the file that holds it with --dataset-token-file"
        yield Problem(field="dataset_token", value=None, remedy=f"{remedy} (or NSS_TRAIN_DATASET_TOKEN)")
    elif not _is_proof(request.dataset_proof, binding, request.job_id):
        remedy = "not the token of this dataset; it may have been replaced (`budget set --rotate-token`)"
        yield Problem(field="dataset_token", value=None, remedy=remedy)
    elif unit != binding.unit:
        remedy = f"protects {in_words(binding.unit)}; this job protects {in_words(unit)}"
        yield Problem(field="guarantee.dataset", value=dataset, remedy=remedy)


def _has_budget(store: Store, dataset: str) -> bool:
    """Tell whether an older release's budget, which has no owner, makes the dataset known."""
    root = DatasetKeys(dataset).root
    entries = (name for name in store.children(root) if name != PRIVATE)
    return any(_is_budget(store.read(root + name)) for name in entries)


def _is_budget(entry: bytes) -> bool:
    try:
        document = json.loads(entry)
    except (ValueError, RecursionError):
        return False  # reading the whole ledger reports what it is instead
    return isinstance(document, dict) and document.get("kind") == "budget"


def _is_proof(given: str, binding: Binding, job_id: str) -> bool:
    return hmac.compare_digest(given.encode(), _proof(bytes.fromhex(binding.key), job_id).encode())


def _new_token() -> str:
    return secrets.token_urlsafe(32)


def _key_of(token: str) -> bytes:
    return hmac.digest(token.strip().encode(), _KEY_OF_TOKEN, "sha256")


def _proof(key: bytes, job_id: str) -> str:
    return hmac.digest(key, job_id.encode(), "sha256").hex()


def _encode(binding: Binding) -> bytes:
    return binding.model_dump_json(indent=1).encode()
