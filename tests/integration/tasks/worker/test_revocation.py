"""A stage that Celery revokes cancels its job, once, with the reason."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tasks.app import App
from tasks.client import Client
from tasks.jobs.documents import Outcome
from tasks.jobs.repository import JobRepository
from tasks.store.local import LocalStore
from tasks.worker.revocation import on_revoked


def revoked(job_id: str) -> Any:
    return SimpleNamespace(kwargs={"message": {"job_id": job_id, "version": 1, "stage": "train"}})


@pytest.fixture
def job_id(app: App, tmp_path: Path) -> str:
    table = tmp_path / "birds.csv"
    table.write_text("species,mass\n" + "Adelie,3750\n" * 20)
    return Client(app.settings).submit(table=table)


def test_the_job_of_a_revoked_stage_is_cancelled_and_stays_so(
    app: App, store: LocalStore, job_id: str
) -> None:
    for _ in range(2):
        on_revoked(app, revoked(job_id))
    outcome = JobRepository(store, job_id).outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.CANCELLED
    assert "revoked through Celery" in str(outcome)


def test_a_job_that_nobody_submitted_and_a_task_without_a_job_leave_no_trace(
    app: App, store: LocalStore
) -> None:
    on_revoked(app, revoked("job-unknown"))
    on_revoked(app, SimpleNamespace(kwargs=None))
    assert JobRepository(store, "job-unknown").cancellation() is None
