"""The ids of jobs: drawn, or computed from an idempotency key."""

from __future__ import annotations

import hashlib
import re
import secrets
from datetime import UTC, datetime
from typing import Annotated

from pydantic import AfterValidator

from nss_train.errors import ParameterError, Problem

_JOB_ID = re.compile(r"[a-z0-9][a-z0-9-]{5,62}[a-z0-9]")

_BEGINNING = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")

OF_A_KEY = "key-"
"""Prefix of the id of a job that was submitted with an idempotency key."""


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
