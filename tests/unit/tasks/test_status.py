"""The status of a job, as the store has it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import GenerationError
from tasks.jobs.documents import JobRequest, Outcome, Table
from tasks.jobs.repository import JobRepository
from tasks.status import StageState, read_status
from tasks.store.local import LocalStore


def submitted(folder: Path) -> JobRepository:
    records = JobRepository(LocalStore(folder), "job-0001")
    table = Table(name="birds.csv")
    records.submitted(
        JobRequest(
            job_id="job-0001", table=table, config=parse_config({}), seed=1, submitted_at=datetime.now(UTC)
        )
    )
    return records


def states(records: JobRepository) -> list[StageState]:
    return [stage.state for stage in read_status(records).stages]


def test_a_stage_that_is_claimed_runs_and_stops_with_its_job(tmp_path: Path) -> None:
    records, pending = submitted(tmp_path), [StageState.PENDING] * 3
    records.claim(Stage.PREPARE_DATA, worker="w", max_attempts=3)
    assert states(records) == [StageState.RUNNING, *pending]
    records.finish(Outcome.FAILED, stage=Stage.PREPARE_DATA, error=GenerationError("no"))
    assert states(records) == [StageState.STOPPED, *pending]
