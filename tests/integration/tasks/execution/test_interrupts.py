"""Interrupts that an attempt notices while files move: transfers may take longer than a lease lasts."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from redis import Redis

from nss_train.contract import Stage
from tasks.broker.lease import Lease, lease_key
from tasks.execution.inputs import Worker
from tasks.execution.interrupts import Interrupts
from tasks.execution.processes.supervisor import StageStopped, StopReason
from tasks.jobs.documents import CancelRequest
from tasks.jobs.gate import OPEN
from tasks.jobs.repository import JobRepository
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore

JOB = "job-watched-1"
TTL_S = 0.6


class Attended:
    """A worker whose downloads take three leases' time, and an attempt that it works on."""

    def __init__(self, valkey: Valkey, settings: Settings) -> None:
        quick = settings.model_copy(update={"lease_ttl_s": TTL_S, "tick_s": 0.05})
        self.redis = Redis.from_url(valkey.url)
        self.redis.flushall()
        self.records = JobRepository(SlowStore(settings.home / "store"), JOB)
        self.records.store.write("model", b"x")
        lease = Lease.acquire(self.redis, JOB, Stage.TRAIN, ttl_s=TTL_S)
        assert lease is not None
        worker = Worker(
            name="w", store=self.records.store, redis=self.redis, settings=quick, send_event=print
        )
        watch = Interrupts(Stage.TRAIN, 1, records=self.records, worker=worker, lease=lease, gate=OPEN)
        self._store = worker.attended(watch.poll_throttled).store
        self.watch = watch

    def download(self, folder: Path) -> None:
        self._store.download("model", folder / "model")

    def is_held(self) -> bool:
        return bool(self.redis.exists(lease_key(JOB, Stage.TRAIN)))


class SlowStore(LocalStore):
    def download(self, key: str, path: Path) -> None:
        for _ in range(20):
            time.sleep(3 * TTL_S / 20)
            self._look()
        super().download(key, path)

    def attended(self, look):  # type: ignore[no-untyped-def]
        return SlowStore(self._root, look=look)


@pytest.fixture
def attended(valkey: Valkey, settings: Settings) -> Attended:
    return Attended(valkey, settings)


def test_a_lease_outlives_a_transfer_that_takes_longer(attended: Attended, tmp_path: Path) -> None:
    attended.download(tmp_path)
    assert attended.is_held()


def test_a_cancellation_ends_a_transfer(attended: Attended, tmp_path: Path) -> None:
    attended.records.store.write(
        attended.records.keys.cancel, CancelRequest.model_construct().model_dump_json().encode()
    )
    started = time.monotonic()
    with pytest.raises(StageStopped) as stopped:
        attended.download(tmp_path)
    assert stopped.value.reason is StopReason.CANCELLED
    assert time.monotonic() - started < TTL_S


def test_a_transfer_ends_when_another_has_taken_over(attended: Attended, tmp_path: Path) -> None:
    attended.redis.set(lease_key(JOB, Stage.TRAIN), "another")
    with pytest.raises(StageStopped) as stopped:
        attended.download(tmp_path)
    assert stopped.value.reason is StopReason.LEASE_LOST
    assert not (tmp_path / "model").exists()


def test_a_base_model_counts_as_used_while_its_stage_runs(
    attended: Attended, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tasks.execution.interrupts._FOLDER_S", 0.0)
    copy, folder = tmp_path / "prepared" / "digest", tmp_path / "scratch"
    (folder / "in").mkdir(parents=True)
    copy.mkdir(parents=True)
    (folder / "in" / "model").symlink_to(copy)
    os.utime(copy, (0, 0))
    attended.watch.folder = folder
    assert attended.watch.poll() is None
    assert time.time() - copy.stat().st_mtime < 60
