"""A worker whose disk is full: what makes room, and that no job is lost while there is none."""

from __future__ import annotations

import errno
import os
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from nss_train.config import parse_config
from nss_train.contract import Stage
from tasks.execution.delivery import TryLater, run_stage
from tasks.execution.inputs import Worker
from tasks.execution.model_cache import ModelCache
from tasks.jobs.documents import JobRequest, StageMessage
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import describe_table, upload_table
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.integration.tasks.private_stages import DIGEST

JOB = "job-0001"
pytestmark = pytest.mark.usefixtures("private_stages")


def full(*_args: object, **_fields: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def too_many_open_files(*_args: object, **_fields: object) -> None:
    raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))


@pytest.fixture
def records(store: LocalStore, tmp_path: Path) -> JobRepository:
    """Return the records of a submitted job."""
    records = JobRepository(store, JOB)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    described = describe_table(table, strict=False)
    upload_table(table, records, str(described.input))
    request = JobRequest(
        job_id=JOB, table=described, config=parse_config({}), seed=1, submitted_at=datetime.now(UTC)
    )
    assert records.submitted(request)
    return records


Run = Callable[..., None]


@pytest.fixture
def run(records: JobRepository, settings: Settings, valkey: Valkey) -> Run:
    """Return a function that runs stages of the job."""
    redis = Redis.from_url(valkey.url)
    redis.flushall()

    def run(*stages: Stage) -> None:
        worker = Worker(
            name="test",
            store=records.store,
            redis=redis,
            settings=settings,
            send_event=lambda *_args, **_fields: None,
        )
        for stage in stages:
            run_stage(StageMessage(job_id=JOB, stage=stage), worker=worker)

    return run


@pytest.fixture
def old_copy(settings: Settings) -> Path:
    return copy_of("a" * 64, settings)


def copy_of(digest: str, settings: Settings) -> Path:
    """Make the local copy of a model, used last a day ago."""
    copy = settings.prepared_dir / digest
    copy.mkdir(parents=True)
    (copy / "manifest.json").write_text('{"files": {}}')
    used = time.time() - 86400
    os.utime(copy, (used, used))
    return copy


def test_an_attempt_that_fills_the_disk_leaves_all_room_there_is_to_the_next(
    run: Run, old_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "download", full)
    with pytest.raises(TryLater, match="cannot write"):
        run(Stage.PREPARE_DATA)
    assert not old_copy.exists()


def test_another_error_of_the_system_is_no_full_disk(
    run: Run, old_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(LocalStore, "download", too_many_open_files)
    with pytest.raises(TryLater, match="Too many open files"):
        run(Stage.PREPARE_DATA)
    assert old_copy.exists()


def test_other_attempts_leave_the_copies_where_they_are(run: Run, old_copy: Path) -> None:
    run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    assert old_copy.exists()


def test_a_disk_that_cannot_be_tidied_up_loses_no_job(
    run: Run, records: JobRepository, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(ModelCache, "prune", full)
        with pytest.raises(TryLater, match="cannot write"):
            run(Stage.PREPARE_DATA)
    run(Stage.PREPARE_DATA)
    assert records.is_finished(Stage.PREPARE_DATA)


def test_another_stage_may_end_while_its_model_is_looked_at(
    run: Run, records: JobRepository, settings: Settings, old_copy: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = settings.scratch_dir / "other.train.1" / "in" / "model"
    model.parent.mkdir(parents=True)
    model.symlink_to(old_copy)
    readlink = Path.readlink

    def ends(path: Path) -> Path:
        path.unlink()
        return readlink(path)

    monkeypatch.setattr(Path, "readlink", ends)
    run(Stage.PREPARE_DATA)
    assert records.is_finished(Stage.PREPARE_DATA)


def test_a_model_that_the_machine_has_already_is_no_output_of_its_stage(
    run: Run, records: JobRepository, settings: Settings
) -> None:
    copy_of(DIGEST, settings)
    run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    marker = records.marker(Stage.LOAD_MODEL)
    assert marker is not None
    assert marker.figures["cache"] == "miss"
    assert not [file.path for file in marker.files if file.path.startswith("model/")]
