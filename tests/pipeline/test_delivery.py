"""Messages on a real broker: delivered once while a worker works on them, again when none does."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue

from tasks.app import App, make_app
from tasks.client import Client
from tasks.flower import flower_app
from tasks.jobs.documents import JobState
from tasks.local.valkey import Valkey
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings, worker_environment

TIMEOUT_S = 5.0
WAIT_S = 240
REPOSITORY = Path(__file__).parents[2]


@pytest.mark.parametrize("heartbeat", [True, False])
def test_a_task_longer_than_the_visibility_timeout_runs_once(
    heartbeat: bool, tmp_path: Path, long: bool
) -> None:
    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as valkey:
        given = {"home": tmp_path, "broker_url": valkey.url, "visibility_timeout_s": TIMEOUT_S}
        settings = Settings.model_validate(
            given | {"visibility_heartbeat": heartbeat, "reconcile_every_s": 0}
        )
        starts = executions(settings, tmp_path / "log.txt", seconds=60 if long else 20)
    # Without the heartbeat the same task runs again and again: the test has teeth.
    assert starts == 1 if heartbeat else starts > 1


def executions(settings: Settings, log: Path, *, seconds: float) -> int:
    """Return how often a task that takes this long is started."""
    command = [
        sys.executable,
        "-m",
        "celery",
        "-A",
        "tests.pipeline.slow_app",
        "worker",
        "--concurrency=4",
        "-Q",
        "cpu",
    ]
    log.touch()
    with subprocess.Popen(
        command,
        cwd=REPOSITORY,
        env=worker_environment(settings),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as worker:
        try:
            make_app(settings).send_task("test.slow", args=[str(log), seconds], queue="cpu")
            deadline = time.monotonic() + 3 * seconds
            while "ended" not in log.read_text() and time.monotonic() < deadline:
                time.sleep(0.1)
            return log.read_text().count("started")
        finally:
            worker.kill()


@pytest.fixture
def lonely(tmp_path: Path) -> Iterator[Settings]:
    """Run a broker of its own without any worker, and yield its settings."""
    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as valkey:
        yield Settings.model_validate({"home": tmp_path / "home", "broker_url": valkey.url})


@pytest.mark.long
def test_jobs_survive_an_emptied_broker(
    client: Client, app: App, table: Path, config: dict[str, Any]
) -> None:
    jobs = [client.submit(table=table, config=config, seed=n) for n in range(3)]
    app.redis.flushall()
    assert set(reconcile(make_app(app.settings), after_s=0)) & set(jobs)
    for job_id in jobs:
        *_, last = client.watch(job_id, timeout_s=WAIT_S)
        assert last.state is JobState.SUCCEEDED


def test_jobs_that_wait_or_have_ended_are_left_alone(
    lonely: Settings, table: Path, config: dict[str, Any]
) -> None:
    app, client = make_app(lonely), Client(lonely)
    waiting, cancelled = (client.submit(table=table, config=config) for _ in range(2))
    assert reconcile(app, after_s=0) == []
    app.redis.flushall()
    client.cancel(cancelled, reason="no more", requested_by="test")
    assert client.status(cancelled).state is JobState.CANCELLED
    assert reconcile(app, after_s=0) == [waiting]
    assert reconcile(app, after_s=0) == []


@pytest.mark.parametrize(("make", "again"), [(make_app, 1), (flower_app, 0)])
def test_a_dashboard_leaves_overdue_messages_to_the_workers(
    lonely: Settings, make: Callable[[Settings], App], again: int
) -> None:
    app = make_app(lonely)
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue("cpu")(channel)
        queue.declare()
        app.send_task("test.nothing", queue="cpu")
        assert queue.get(no_ack=False) is not None
        app.redis.zadd("unacked_index", dict.fromkeys(app.redis.zrange("unacked_index", 0, -1), 1.0))
        with make(lonely).connection_for_read() as other, other.channel() as looking:
            looking.qos.restore_visible()
        assert app.redis.llen("cpu") == again
