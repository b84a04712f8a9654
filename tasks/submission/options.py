"""The checks of a submission's options: its place in line, what identifies it, the texts it brings."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import PurePath

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.support import unsupported_ranks, unsupported_sharing
from nss_train.documents import is_unicode
from nss_train.errors import Problem
from tasks.jobs.submission import (
    KEY_MAX_CHARS,
    PRIORITY_RANGE,
    SEEDS,
    TENANT,
    Submission,
    SubmissionOptions,
)
from tasks.jobs.table import is_uri
from tasks.jobs.texts import problems_of_texts


def problems_of_options(submission: Submission) -> Iterator[Problem]:
    """Yield every problem that the options show without the config."""
    yield from _problems_of_place(submission)
    yield from _problems_of_identity(submission)
    # Only some names are in the pattern of a tenant, which is checked with its place.
    texts = {name: getattr(submission, name) for name in SubmissionOptions.model_fields if name != "tenant"}
    table = submission.table
    kept = str(table) if is_uri(table) else PurePath(table).name  # the folder of a file is not kept
    yield from problems_of_texts(table=kept, **texts)
    if not is_unicode(submission.dataset_token or ""):
        yield Problem(field="dataset_token", value=None, remedy="use it as it was printed, in ASCII")


def _problems_of_place(submission: Submission) -> Iterator[Problem]:
    priority, tenant = submission.priority, submission.tenant
    if not isinstance(priority, int) or priority not in PRIORITY_RANGE:
        remedy = f"use {PRIORITY_RANGE[0]} (first) to {PRIORITY_RANGE[-1]} (last)"
        yield Problem(field="priority", value=priority, remedy=remedy)
    if not re.fullmatch(TENANT, tenant):
        remedy = "use up to 63 lower-case letters, digits and inner hyphens"
        yield Problem(field="tenant", value=tenant[:100], remedy=remedy)


def _problems_of_identity(submission: Submission) -> Iterator[Problem]:
    seed, key = submission.seed, submission.idempotency_key
    if seed is not None and (not isinstance(seed, int) or not 0 <= seed < SEEDS):
        yield Problem(field="seed", value=seed, remedy=f"use 0 to {SEEDS - 1}, or none")
    if key is not None and not 1 <= len(key) <= KEY_MAX_CHARS:
        remedy = f"use 1 to {KEY_MAX_CHARS} characters, or none"
        yield Problem(field="idempotency_key", value=key[:100], remedy=remedy)


def problems_of_ranks(config: SafeSynthesizerParameters, submission: Submission) -> Iterator[Problem]:
    """Yield every problem of training this config in as many processes as the options ask for."""
    yield from unsupported_ranks(submission.ranks, effective_batch=config.training.effective_batch_size)
    if submission.fsdp:
        yield from unsupported_sharing(config, ranks=submission.ranks)
