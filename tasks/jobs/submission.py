"""A submission as the command line, the client, the message and the request share it.

A new option is a field of :class:`JobOptions`, or of :class:`SubmissionOptions` if the request does not keep
it as it was given. Its description is the help of its command-line option.
"""

from __future__ import annotations

from collections.abc import Mapping
from inspect import signature
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import Frozen
from tasks.jobs.versioning import Versioned

ConfigSource = Mapping[str, Any] | SafeSynthesizerParameters | Path | None

TENANT = r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$"
PRIORITY_RANGE = range(10)
DEFAULT_PRIORITY = 5
DEFAULT_TENANT = "default"
SEEDS = 2**32
"""Number of seeds that NumPy accepts."""
KEY_MAX_CHARS = 1000
URI_MAX_CHARS = 2048
NAME_MAX_CHARS = 200

DatasetProof = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
"""HMAC-SHA256 of the job's id, made with the token of the dataset that the job is charged to."""


class Webhook(Frozen):
    """The receiver of notices about a job."""

    url: str
    progress: bool = False
    """Whether a notice is sent for each committed stage, too, and not for the outcome alone."""


class JobOptions(Frozen):
    """The options of a submission that the request keeps as they were given."""

    idempotency_key: Annotated[
        str | None, Field(description="Idempotency key: the same key is the same job.")
    ] = None
    family: Annotated[
        str, Field(description="Family of the base model, if neither its name nor its config.json says so.")
    ] = ""
    ranks: Annotated[
        int, Field(description="Processes that train together; 0: as the worker has devices.")
    ] = 0
    fsdp: Annotated[bool, Field(description="The ranks share the base model's weights.")] = False
    priority: Annotated[
        int, Field(description=f"{PRIORITY_RANGE[0]} begins first, {PRIORITY_RANGE[-1]} last.")
    ] = DEFAULT_PRIORITY
    """Priority within the tenant."""
    tenant: Annotated[str, Field(description="Shares the workers with others.")] = DEFAULT_TENANT

    def job_options(self) -> dict[str, Any]:
        """Return these options by name, without those of a subclass."""
        return {name: getattr(self, name) for name in JobOptions.model_fields}


class SubmissionOptions(JobOptions):
    """The options of a submission, whoever makes it."""

    seed: Annotated[int | None, Field(description="Repeats a run; drawn when left out.")] = None
    webhook: Annotated[str | None, Field(description="URL that is called when the job has ended.")] = None
    webhook_progress: Annotated[bool, Field(description="The webhook is called after each stage, too.")] = (
        False
    )

    @property
    def receiver(self) -> Webhook | None:
        """Return who is notified."""
        if self.webhook is None:
            return None
        return Webhook(url=self.webhook, progress=self.webhook_progress)


class Submission(SubmissionOptions):
    """A table, a config, and options: a job that somebody asks for."""

    table: Path | str
    config: ConfigSource = None
    dataset_token: Annotated[str | None, Field(repr=False)] = None

    @classmethod
    def unchecked(cls, *args: Any, **given: Any) -> Submission:
        """Return a submission whose values are checked by ``check_request``: one error lists all problems."""
        signature(cls).bind(*args, **given)
        return cls.model_construct(**given)


class SubmitMessage(Versioned, SubmissionOptions):
    """The message that other services send to ``nss_train.submit``. Without a version it has version 1."""

    table: Annotated[str, Field(max_length=URI_MAX_CHARS)]
    config: dict[str, Any]
    idempotency_key: Annotated[str, Field(min_length=1, max_length=KEY_MAX_CHARS)] | None = None
    family: Annotated[str, Field(max_length=NAME_MAX_CHARS)] = ""
    tenant: Annotated[str, Field(max_length=NAME_MAX_CHARS)] = DEFAULT_TENANT
    webhook: Annotated[str, Field(max_length=URI_MAX_CHARS)] | None = None
    dataset_proof: DatasetProof | None = None

    def submission(self) -> Submission:
        """Return the submission that the message asks for."""
        options = {name: getattr(self, name) for name in SubmissionOptions.model_fields}
        return Submission.unchecked(table=self.table, config=self.config, **options)
