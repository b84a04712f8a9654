"""A worker without an extra says so and does nothing."""

from __future__ import annotations

import re
from datetime import UTC, datetime
from pathlib import Path
from typing import NoReturn

import pytest
from redis import Redis

from nss_train.config import parse_config
from nss_train.contract import Stage
from tasks.execution.delivery import TryLater, Worker, run_stage
from tasks.jobs.attempts import AttemptsExhausted
from tasks.jobs.documents import JobRequest, Outcome, StageMessage
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import describe_table, upload_table
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore

JOB = "job-0001"
REMEDY = "opacus: not installed here; pip install 'nss-train[private]'"
PRIVATE = parse_config({"privacy": {"dp_enabled": True, "delta": 1e-5}})


@pytest.fixture
def without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda package: package != "opacus")


@pytest.mark.usefixtures("without_opacus")
def test_a_worker_without_an_extra_fetches_nothing_and_says_what_is_missing(
    settings: Settings, store: LocalStore, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetches(*_: object, **__: object) -> NoReturn:
        raise AssertionError("it was fetched")

    monkeypatch.setattr("tasks.execution.attempt.prepare_folder", fetches)
    records = _submitted(store, tmp_path)
    with Redis.from_url(valkey.url) as redis:
        worker = Worker(name="test", store=store, redis=redis, settings=settings, send_event=print)
        message = StageMessage(job_id=JOB, stage=Stage.PREPARE_DATA)
        for _ in range(settings.max_attempts):
            with pytest.raises(TryLater, match=re.escape(REMEDY)):
                run_stage(message, worker=worker)
        with pytest.raises(AttemptsExhausted):
            run_stage(message, worker=worker)
    ended = records.outcome()
    assert ended is not None
    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None
    assert {problem["remedy"] for problem in ended.error["problems"]} == {REMEDY}


def _submitted(store: LocalStore, folder: Path) -> JobRepository:
    """Submit a strictly private job, which reports little."""
    records, table = JobRepository(store, JOB), folder / "birds.csv"
    table.write_text("species\nAdelie\n")
    described = describe_table(table, strict=True)
    upload_table(table, records, str(described.input))
    request = JobRequest(
        job_id=JOB,
        table=described,
        config=PRIVATE,
        seed=1,
        submitted_at=datetime.now(UTC),
        budget_name="job-" + "0" * 32,
    )
    assert records.submitted(request)
    return records
