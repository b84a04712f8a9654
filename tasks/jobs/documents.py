"""A job as the store knows it: documents, keys, state."""

from __future__ import annotations

import hashlib
import re
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Frozen, Stage
from nss_train.cost.cost import Cost
from nss_train.errors import ParameterError, Problem, Retry
from tasks.jobs.versioning import VERSION
from tasks.store.keys import check_key

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{5,62}[a-z0-9]")

_BEGINNING = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

OF_A_KEY = "key-"
"""Prefix of the id of a job that was submitted with an idempotency key."""

TENANT = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
DEFAULT_PRIORITY = 5
DEFAULT_TENANT = "default"


def is_job_id(text: str) -> bool:
    return _JOB_ID.fullmatch(text) is not None


def check_job_id(job_id: str) -> str:
    """Return a valid id, or raise :class:`ParameterError`: it becomes part of store keys and folder names."""
    if not is_job_id(job_id):
        remedy = "use 7 to 64 lower-case letters, digits and inner hyphens, as `submit` printed it"
        raise ParameterError("Not a job id.", [Problem(field="job_id", value=job_id[:100], remedy=remedy)])
    return job_id


def check_beginning(beginning: str) -> str:
    """Return the beginning of an id, or raise :class:`ParameterError` when no id can begin like this."""
    if _BEGINNING.fullmatch(beginning) is None:
        check_job_id(beginning)
    return beginning


def new_job_id() -> str:
    return f"{datetime.now(UTC):%Y%m%d-%H%M%S}-{secrets.token_hex(4)}"


def id_of_key(idempotency_key: str) -> str:
    """Return the job id that belongs to an idempotency key, so that any client can compute it."""
    return f"{OF_A_KEY}{hashlib.sha256(idempotency_key.encode()).hexdigest()[:32]}"


JobId = Annotated[str, AfterValidator(check_job_id)]


class Versioned(Frozen):
    """A document or message that outlives its process, and may be read by one of another release."""

    version: Annotated[int, Field(strict=True, ge=1, le=VERSION)] = VERSION


class StageMessage(Versioned):
    """The message of a stage: all that travels through the broker."""

    job_id: JobId
    stage: Stage


SEEDS = 2**32
"""Number of seeds that NumPy accepts."""
KEY_MAX_CHARS = 1000
URI_MAX_CHARS = 2048
NAME_MAX_CHARS = 200


DatasetProof = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""HMAC-SHA256 of the job's id, made with the token of the dataset that the job is charged to."""


class SubmitMessage(Versioned):
    """The message that other services send to ``nss_train.submit``. Without a version it has version 1."""

    table: Annotated[str, Field(max_length=URI_MAX_CHARS)]
    config: dict[str, Any]
    idempotency_key: Annotated[str, Field(min_length=1, max_length=KEY_MAX_CHARS)] | None = None
    seed: Annotated[int, Field(ge=0, lt=SEEDS)] | None = None
    family: Annotated[str, Field(max_length=NAME_MAX_CHARS)] = ""
    ranks: int = 0
    fsdp: bool = False
    priority: int = DEFAULT_PRIORITY
    tenant: Annotated[str, Field(max_length=NAME_MAX_CHARS)] = DEFAULT_TENANT
    webhook: Annotated[str, Field(max_length=URI_MAX_CHARS)] | None = None
    webhook_progress: bool = False
    dataset_proof: DatasetProof | None = None


class Webhook(Frozen):
    """The receiver of notices about a job."""

    url: str
    progress: bool = False
    """Whether a notice is sent for each committed stage, too, and not for the outcome alone."""


class Table(Frozen):
    """The location of a job's table: in the store, or at an allowed URI. Nothing follows from its content."""

    name: str
    """Name of the file; of a strictly private table only its format (``table.csv``)."""
    input: str | None = None
    """Random name under which the store holds the table and its description (:class:`TableFile`)."""
    uri: str | None = None
    sha256: str | None = None
    """Digest of the table, with ``bytes``, as releases 1 to 3 wrote it: it was the table's key in the
    store."""
    bytes: int | None = None

    @property
    def uri_path(self) -> str:
        """Return ``bucket/key`` of an ``s3://`` URI."""
        return str(self.uri).removeprefix("s3://")


class TableFile(Versioned):
    """``private/input/<random>.json``: name, key, digest and size of the uploaded table."""

    name: str
    key: Annotated[str, AfterValidator(check_key)]
    sha256: str
    bytes: int


class JobRequest(Versioned):
    """``request.json``: a submission."""

    job_id: JobId
    table: Table
    config: SafeSynthesizerParameters
    family: str = ""
    """Family of the base model, if neither its name nor its ``config.json`` shows it."""
    ranks: int = 0
    """Processes that train together; 0 leaves it to the worker."""
    fsdp: bool = False
    """Whether the processes share the base model's weights instead of each holding all of them."""
    priority: Annotated[int, Field(ge=0, le=9)] = DEFAULT_PRIORITY
    """Priority within the tenant: 0 begins first, 9 last."""
    tenant: Annotated[str, Field(pattern=TENANT)] = DEFAULT_TENANT
    """Tenant of the job; tenants share the workers fairly."""
    seed: int
    submitted_at: datetime
    idempotency_key: str | None = None
    webhook: Webhook | None = None
    dataset_proof: DatasetProof | None = None
    budget_name: str = ""
    """Random name of the ledger of a private job that names no dataset; "" in what older releases wrote."""


class StoredFile(Frozen):
    """One output file of a committed stage; ``path`` is relative to the stage's ``out``."""

    path: Annotated[str, AfterValidator(check_key)]
    key: Annotated[str, AfterValidator(check_key)]
    sha256: str
    bytes: int


class PrivateFiles(Versioned):
    """``private/attempts/<stage>/<n>/files.json``: an attempt's outputs that are not published."""

    files: tuple[StoredFile, ...] = ()
    input_digest: str
    """SHA-256 of all that the stage read, the table included."""


WARNINGS = "warnings"
"""Key of the warnings in prepare_data's figures. The gate of a strictly private job drops it."""


def warnings_among(figures: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the warnings in prepare_data's figures: how the table was read, a training that is too short."""
    cost = Cost.among(figures)
    return (*figures.get(WARNINGS, ()), *(() if cost is None else cost.warnings()))


class StageCommit(Versioned):
    """``stages/<stage>.json``: the commit of a stage, with its published outputs."""

    stage: Stage
    attempt: int
    started_at: datetime
    finished_at: datetime
    files: tuple[StoredFile, ...]
    """Published outputs; the others are in :class:`PrivateFiles`."""
    input_digest: str | None = None
    """Digest of the inputs; only in what releases 1 to 3 wrote."""
    figures: dict[str, Any] = Field(default_factory=dict)
    model_digest: str | None = None


class Claim(Versioned):
    """``attempts/<stage>/<n>/claim.json``: a worker's claim of a stage; n is the fencing token."""

    attempt: int
    worker: str
    token: str = ""
    """Token of the delivery, by which a claim is recognized whose answer was lost on the way."""
    position: int = 0
    """Step after which the attempt begins."""
    claimed_at: datetime


class CancelRequest(Versioned):
    """``cancel.json``: its presence asks for cancellation."""

    reason: str
    requested_by: str
    requested_at: datetime

    def __str__(self) -> str:
        return f"{self.reason} (by {self.requested_by})"


class Outcome(StrEnum):
    """The final outcome of a job."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class OutcomeRecord(Versioned):
    """``outcome.json``: how the job ended; written once, never changed."""

    outcome: Outcome
    finished_at: datetime
    stage: Stage | None = None
    error: dict[str, Any] | None = None
    """Error as :func:`nss_train.errors.to_json` writes it (failed only)."""
    reason: str | None = None
    """Reason of the cancellation (cancelled only)."""
    warnings: tuple[str, ...] = ()
    """Warnings for a person about how the table was read; nothing of a private one."""


class JobState(StrEnum):
    """The state of a job."""

    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


class Charge(Versioned):
    """``privacy/<attempt>.json``: number of private steps that an attempt may have taken."""

    attempt: int
    steps: int


class EndKind(StrEnum):
    """The end of an attempt that committed nothing. A cancellation ends the job, not an attempt."""

    FAILED = "failed"
    DRAINED = "drained"
    LOST = "lost"
    """Another attempt took over."""


class AttemptEnd(Versioned):
    """``attempts/<stage>/<n>/ending.json``: why an attempt committed nothing; a killed one has none."""

    attempt: int
    ended_at: datetime
    kind: EndKind
    retry: Retry | None = None
    """Kind of retry that can help (failed only)."""
    error: dict[str, Any] | None = None
    """Error as :func:`nss_train.errors.to_json` writes it (failed only)."""
    reason: str | None = None
    """Id by which published errors refer to this document (below ``private/`` only)."""

    @property
    def is_free(self) -> bool:
        """Tell whether the attempt does not count: the job was not the cause of its end."""
        return self.kind is not EndKind.FAILED or self.retry is Retry.SAME_WORKER

    def __str__(self) -> str:
        why = "" if self.error is None else f": {self.error['message']}"
        return f"attempt {self.attempt} {self.kind}{why}"


RESERVED = ("jobs", "models", "open", "privacy", "webhooks")
"""Folders of the store that this service writes itself."""


class Keys:
    """Store keys of one job."""

    def __init__(self, job_id: str) -> None:
        self.root = f"jobs/{check_job_id(job_id)}"
        self.private = f"{self.root}/private/"
        """Folder for workers and operators alone: the table, and what reveals more of it than was paid
        for."""
        self.request = f"{self.root}/request.json"
        self.cancel = f"{self.root}/cancel.json"
        self.outcome = f"{self.root}/outcome.json"
        self.checkpoints = f"{self.root}/checkpoints/"
        self.privacy_plan = f"{self.root}/privacy.json"
        self.charges = f"{self.root}/privacy/"
        self.holdout_key = f"{self.private}key"
        self.draw = f"{self.private}draw.json"
        self.open = f"open/{job_id}"
        """Key that is written before the request, and removed when the job has ended and is tidied up."""
        self.webhook_pending = f"webhooks/{job_id}"
        """Key that exists until all of the job's notices are delivered or given up."""

    def table(self, name: str) -> str:
        return f"{self.private}input/{name}"

    def table_file(self, name: str) -> str:
        return f"{self.table(name)}.json"

    def old_table(self, sha256: str) -> str:
        """Return the key of a table that releases 1 to 3 stored."""
        return f"{self.root}/input/{sha256}"

    def marker(self, stage: Stage) -> str:
        return f"{self.root}/stages/{stage}.json"

    def attempts(self, stage: Stage) -> str:
        return f"{self.root}/attempts/{stage}/"

    def attempt(self, stage: Stage, number: int) -> str:
        return f"{self.attempts(stage)}{number}"

    def charge(self, attempt: int) -> str:
        return f"{self.charges}{attempt}.json"

    def webhooks(self, notice: str) -> str:
        return f"{self.root}/webhooks/{notice}/"

    def webhook(self, notice: str, attempt: int) -> str:
        return f"{self.webhooks(notice)}{attempt}.json"

    def claim(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/claim.json"

    def ending(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/ending.json"

    def log(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/log.txt"

    def progress(self, stage: Stage, number: int) -> str:
        return f"{self.attempt(stage, number)}/progress.json"

    def output(self, stage: Stage, number: int, path: str) -> str:
        return f"{self.attempt(stage, number)}/out/{path}"

    def private_attempt(self, stage: Stage, number: int) -> str:
        return f"{self.private}attempts/{stage}/{number}"

    def private_files(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/files.json"

    def private_ending(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/ending.json"

    def private_log(self, stage: Stage, number: int) -> str:
        return f"{self.private_attempt(stage, number)}/log.txt"

    def private_output(self, stage: Stage, number: int, path: str) -> str:
        return f"{self.private_attempt(stage, number)}/out/{path}"


def model_prefix(digest: str) -> str:
    """Return the store folder of a prepared base model; its ``manifest.json`` is written last."""
    return f"models/{digest}"
