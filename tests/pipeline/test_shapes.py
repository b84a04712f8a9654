"""A training goes to the smallest device that has enough memory for it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import Stage
from tasks.app import App, make_app
from tasks.broker import queues
from tasks.client import Client
from tasks.jobs.documents import StageCommit
from tasks.jobs.repository import JobRepository
from tasks.local.valkey import Valkey
from tasks.scheduling.chain import send
from tasks.settings import Settings, worker_environment
from tests.pipeline.conftest import worker
from tests.pipeline.test_worker_life import wait_until

SHAPES = {"cuda-80g": 80, "cuda-24g": 24}


@pytest.fixture
def shapes(tmp_path: Path) -> Iterator[Settings]:
    with Valkey(tmp_path / "valkey") as server:
        given = {"home": tmp_path / "home", "broker_url": server.url, "cuda_queues": SHAPES}
        yield Settings.model_validate(given)


def lengths(app: App) -> dict[str, int]:
    return {queue: n for queue, n in queues.waiting(app.redis, app.settings).items() if n}


def load(app: App, job_id: str, figures: dict[str, Any]) -> None:
    """Commit what load_model leaves in the store."""
    now = datetime.now(UTC)
    marker = StageCommit(
        stage=Stage.LOAD_MODEL,
        attempt=1,
        started_at=now,
        finished_at=now,
        files=(),
        figures=figures,
    )
    JobRepository(app.store, job_id).commit(marker)


@pytest.mark.parametrize(
    ("gib", "queue"), [(3.0, "cuda-24g"), (24.0, "cuda-24g"), (24.1, "cuda-80g"), (500.0, "cuda-80g")]
)
def test_a_training_is_sent_to_the_smallest_queue_that_has_the_memory(
    shapes: Settings, gib: float, queue: str, caplog: pytest.LogCaptureFixture
) -> None:
    app = make_app(shapes)
    load(app, "job-0001", {"train_bytes": int(gib * 2**30)})
    send(app, "job-0001", start=Stage.TRAIN)
    assert lengths(app) == {queue: 1}
    warned = [record.message for record in caplog.records if record.levelname == "WARNING"]
    assert bool(warned) == (gib > 80)


def test_a_training_of_unknown_needs_goes_to_the_largest(shapes: Settings) -> None:
    app = make_app(shapes)
    load(app, "job-0001", {})
    send(app, "job-0001", start=Stage.TRAIN)
    send(app, "job-0002", start=Stage.TRAIN)
    assert lengths(app) == {"cuda-80g": 2}


def test_a_store_that_is_away_loses_no_training(shapes: Settings) -> None:
    away = {"store_url": "s3://none", "s3_endpoint": "127.0.0.1:9"}
    app = make_app(Settings.model_validate(dict(shapes) | away))
    send(app, "job-0001", start=Stage.TRAIN)
    assert lengths(app) == {"cuda-80g": 1}


def test_without_shapes_there_is_one_queue(shapes: Settings) -> None:
    app = make_app(Settings.model_validate(dict(shapes) | {"cuda_queues": {}, "queue_cuda": "gpu"}))
    send(app, "job-0001", start=Stage.TRAIN)
    assert lengths(app) == {"gpu": 1}


def test_the_shapes_come_out_of_the_environment_as_they_went_in(
    shapes: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, value in worker_environment(shapes).items():
        monkeypatch.setenv(name, value)
    assert Settings().cuda_queues == SHAPES
    assert Settings().cuda_queue_names == ("cuda-24g", "cuda-80g")


def test_the_worker_that_loaded_the_model_sends_the_training_where_it_fits(
    shapes: Settings, table: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    app = make_app(shapes)
    job_id = Client(shapes).submit(table=table, config=config)
    with worker(shapes, "cpu", tmp_path / "log.txt"):
        assert wait_until(lambda: bool(lengths(app).get("cuda-24g"))), (tmp_path / "log.txt").read_text()
    marker = JobRepository(app.store, job_id).marker(Stage.LOAD_MODEL)
    assert marker is not None
    assert 2**30 < marker.figures["train_bytes"] < 24 * 2**30
    assert app.redis.llen(queues.lists("cuda-24g")[1]) == 1
