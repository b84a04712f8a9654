"""What messages are called, and what marks those of a job."""

from __future__ import annotations

from nss_train.contract import Stage

STAMP = "job_id"
"""Celery revokes all messages of a job by it."""
TASK_NAMES: dict[Stage, str] = {stage: f"nss_train.{stage}" for stage in Stage}
