"""The names of the tasks, and the stamp that marks a job's messages."""

from __future__ import annotations

from nss_train.contract import Stage

STAMP = "job_id"
"""Stamp by which Celery revokes all messages of a job."""
TASK_NAMES: dict[Stage, str] = {stage: f"nss_train.{stage}" for stage in Stage}
