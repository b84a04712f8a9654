"""A worker shows that it lives, and leaves by itself."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import Stage
from tasks.app import App, make_app
from tasks.broker.lease import Lease
from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.local.stack import wait_for_workers
from tasks.local.valkey import Valkey
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings
from tasks.worker import heartbeat
from tasks.worker.heartbeat import Heartbeat
from tests.pipeline.conftest import worker

WAIT_S = 120.0
BAD_MODEL: dict[str, Any] = {
    "data": {"holdout": 0},
    "training": {"pretrained_model": "no-such-model"},
}
"""Config of a job whose first stage fails for good after a moment."""


def wait_until(true: Callable[[], bool], deadline_s: float = WAIT_S) -> bool:
    deadline = time.monotonic() + deadline_s
    while not true() and time.monotonic() < deadline:
        time.sleep(0.05)
    return true()


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def lonely(broker: Valkey, tmp_path: Path) -> Settings:
    """Return the settings of a broker and a store of their own, without a worker."""
    return Settings.model_validate(
        {"home": tmp_path / "home", "broker_url": broker.url, "reconcile_every_s": 0}
    )


@pytest.fixture
def app(lonely: Settings) -> App:
    return make_app(lonely)


def beat_of(settings: Settings, name: str = "cpu@test") -> float:
    file = settings.heartbeats_dir / name
    return file.stat().st_mtime if file.exists() else 0.0


def beats_on(settings: Settings) -> bool:
    """Tell whether the heart beats once more within two and a half intervals."""
    before = beat_of(settings)
    return wait_until(lambda: beat_of(settings) > before, 2.5 * heartbeat.BEAT_S)


def test_the_heart_beats_while_the_broker_is_away_and_stops_with_the_process(
    lonely: Settings, broker: Valkey, tmp_path: Path
) -> None:
    with worker(lonely, "cpu", tmp_path / "log.txt") as process:
        assert wait_until(lambda: beat_of(lonely) > 0)
        assert beats_on(lonely)
        broker.kill()
        assert wait_until(lambda: "Cannot connect" in (tmp_path / "log.txt").read_text())
        assert beats_on(lonely)
        assert beats_on(lonely)
        process.send_signal(signal.SIGSTOP)
        hung = not beats_on(lonely)
        process.send_signal(signal.SIGCONT)
        assert hung


def test_a_worker_that_leaves_takes_its_heartbeat_along(lonely: Settings, tmp_path: Path) -> None:
    with worker(lonely, "cpu", tmp_path / "log.txt") as process:
        wait_for_workers(lonely, {"cpu"})
        assert beat_of(lonely) > 0
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0
    assert beat_of(lonely) == 0


def test_a_heart_is_silent_while_its_process_owes_a_beat(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(heartbeat, "BEAT_S", 0.05)
    heart = Heartbeat(tmp_path)
    heart.start("cpu@test")
    os.utime(tmp_path / "cpu@test", (0, 0))
    time.sleep(0.3)
    assert (tmp_path / "cpu@test").stat().st_mtime == 0
    with heart.keep_alive_while_blocked():
        os.utime(tmp_path / "cpu@test", (0, 0))
        assert wait_until(lambda: (tmp_path / "cpu@test").stat().st_mtime > 0, 5)
    heart.stop()
    assert not (tmp_path / "cpu@test").exists()


def test_a_worker_leaves_after_its_stages_and_takes_none_too_many(
    lonely: Settings, app: App, table: Path, tmp_path: Path
) -> None:
    client = Client(lonely)
    jobs = [client.submit(table=table, config=BAD_MODEL, seed=n) for n in range(3)]
    log = tmp_path / "log.txt"
    with worker(lonely, "cpu", log, "--max-jobs", "2") as process:
        assert process.wait(WAIT_S) == 0
    states = [client.status(job).state for job in jobs]
    assert states == [JobState.FAILED, JobState.FAILED, JobState.QUEUED]
    # The third was never fetched, so nothing was redelivered.
    assert app.redis.hget("nss-train:counters", "redelivered") is None
    assert app.redis.hlen("unacked") == 0


def test_a_worker_leaves_when_nothing_comes(lonely: Settings, tmp_path: Path) -> None:
    started = time.monotonic()
    with worker(lonely, "cpu", tmp_path / "log.txt", "--max-jobs", "1", "--idle-exit-s", "3") as process:
        assert process.wait(WAIT_S) == 0
    assert time.monotonic() - started > 3


def test_a_delivery_without_work_does_not_send_a_worker_away(
    lonely: Settings, app: App, table: Path, tmp_path: Path
) -> None:
    client = Client(lonely)
    job_id = client.submit(table=table, config=BAD_MODEL)
    lease = Lease.acquire(app.redis, job_id, Stage.PREPARE_DATA, ttl_s=WAIT_S)
    assert lease is not None
    with worker(lonely, "cpu", tmp_path / "log.txt", "--max-jobs", "1") as process:
        assert wait_until(lambda: app.redis.hget("nss-train:counters", "duplicates") == b"1")
        lease.release()
        assert reconcile(app, after_s=0) == [job_id]
        assert process.wait(WAIT_S) == 0
    assert client.status(job_id).state is JobState.FAILED


def test_an_idle_worker_waits_for_a_stage_that_runs(lonely: Settings, table: Path, tmp_path: Path) -> None:
    client = Client(lonely)
    job_id = client.submit(table=table, config=BAD_MODEL)
    with worker(lonely, "cpu", tmp_path / "log.txt", "--idle-exit-s", "0.5") as process:
        assert process.wait(WAIT_S) == 0
    assert client.status(job_id).state is JobState.FAILED
    log = (tmp_path / "log.txt").read_text()
    assert log.index("Base model not found") < log.index("leaving:")
