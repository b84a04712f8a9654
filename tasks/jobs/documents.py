"""A job as the store knows it: its documents and its state."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Frozen, Stage
from nss_train.cost.cost import Cost
from nss_train.errors import Retry
from tasks.jobs.ids import JobId
from tasks.jobs.submission import (
    DEFAULT_PRIORITY,
    DEFAULT_TENANT,
    PRIORITY_RANGE,
    TENANT,
    DatasetProof,
    JobOptions,
    Webhook,
)
from tasks.jobs.versioning import Versioned
from tasks.store.keys import check_key


class StageMessage(Versioned):
    """The message of a stage: all that travels through the broker."""

    job_id: JobId
    stage: Stage


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


class JobRequest(Versioned, JobOptions):
    """``request.json``: a submission."""

    job_id: JobId
    table: Table
    config: SafeSynthesizerParameters
    priority: Annotated[int, Field(ge=PRIORITY_RANGE[0], le=PRIORITY_RANGE[-1])] = DEFAULT_PRIORITY
    tenant: Annotated[str, Field(pattern=TENANT)] = DEFAULT_TENANT
    seed: int
    submitted_at: datetime
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
    """Step after which the attempt begins; of a strictly private job the attempt that came that far, as the
    step would tell how many were taken until then."""
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
    """``private/charges/<attempt>.json``: number of private steps that an attempt may have taken.

    ``privacy/<attempt>.json`` is what versions 1 to 5 wrote. Today it has no steps, and is for them to meet.
    """

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
