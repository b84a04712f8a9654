"""Ends of an attempt while its checkpoint is on the way to a store that takes longer than a lease lasts."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from nss_train.contract import CHECKPOINT_SAVED, CHECKPOINTS, Event, Stage, StageResult
from nss_train.errors import DataError, NSSTrainError, StageLost
from nss_train.training.checkpoint import write_manifest
from tasks.broker.lease import Lease, lease_key
from tasks.execution.attempt import Attempt
from tasks.execution.checkpoints import CheckpointStore, Kept
from tasks.execution.inputs import Worker
from tasks.execution.interrupts import Interrupts
from tasks.execution.processes.supervisor import StageStopped, StopReason
from tasks.execution.progress import stream_key
from tasks.jobs.documents import CancelRequest
from tasks.jobs.gate import OPEN, Gate
from tasks.jobs.repository import JobRepository
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tasks.telemetry import counters

JOB = "job-ending-1"
TTL_S = 0.6
PIECES = 20
STEP = 5


class SlowStore(LocalStore):
    """A store in which the upload of a checkpoint takes three leases' time."""

    def __init__(
        self, root: Path, begun: threading.Event | None = None, look: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(root, look=look)
        self.begun = begun or threading.Event()

    def upload(self, key: str, path: Path) -> None:
        if f"/{CHECKPOINTS}/" in key:
            self.begun.set()
            for _ in range(PIECES):
                time.sleep(3 * TTL_S / PIECES)
                self._look()
        super().upload(key, path)

    def attended(self, look: Callable[[], None]) -> SlowStore:
        return SlowStore(self._root, self.begun, look)


class Training:
    """An attempt at a training that ends, as ``end`` says, when its checkpoint has begun to be uploaded."""

    def __init__(
        self, valkey: Valkey, settings: Settings, monkeypatch: pytest.MonkeyPatch, *, gate: Gate = OPEN
    ) -> None:
        self._gate = gate
        quick = settings.model_copy(update={"lease_ttl_s": TTL_S, "tick_s": 0.05})
        self._redis = Redis.from_url(valkey.url)
        self._redis.flushall()
        self._store = SlowStore(settings.home / "store")
        self.records = JobRepository(self._store, JOB)
        self._lease = Lease.acquire(self._redis, JOB, Stage.TRAIN, ttl_s=TTL_S)
        assert self._lease is not None
        worker = Worker(name="w", store=self._store, redis=self._redis, settings=quick, send_event=_ignore)
        interrupts = Interrupts(
            Stage.TRAIN, 1, records=self.records, worker=worker, lease=self._lease, gate=gate
        )
        self._attempt = Attempt(
            Stage.TRAIN, 1, records=self.records, worker=worker, interrupts=interrupts, gate=gate
        )
        self._end: Exception | None = None
        monkeypatch.setattr("tasks.execution.attempt.prepare_folder", _prepare)
        monkeypatch.setattr("tasks.execution.attempt.run_child", self._child)

    def run(self, end: Exception | None = None) -> bool:
        self._end = end
        return self._attempt.run()

    def cancel_when_the_upload_has_begun(self) -> None:
        assert self._store.begun.wait(10)
        cancel = CancelRequest(reason="", requested_by="", requested_at=datetime.now(UTC))
        self.records.store.write(self.records.keys.cancel, cancel.model_dump_json().encode())

    @property
    def keeps_its_lease(self) -> bool:
        return bool(self._redis.exists(lease_key(JOB, Stage.TRAIN)))

    @property
    def checkpoints(self) -> list[Kept]:
        return CheckpointStore(self._store, self.records.keys, private=self._gate.strict).complete()

    @property
    def told(self) -> list[str]:
        """Return the events that were published."""
        return [json.loads(fields[b"event"])["action"] for _, fields in self._redis.xrange(stream_key(JOB))]

    @property
    def counted(self) -> int:
        return counters.read(self._redis)[counters.Action.CHECKPOINTS]

    def _child(
        self, _stage: Stage, folder: Path, *, on_event: Callable[[Event], None], **_options: object
    ) -> StageResult:
        made = folder / CHECKPOINTS / str(STEP)
        made.mkdir(parents=True)
        (made / "optimizer.pt").write_text("state")
        write_manifest(made, STEP)
        on_event(Event(action=CHECKPOINT_SAVED, fields={"step": STEP}))
        assert self._store.begun.wait(10)
        if self._end is not None:
            raise self._end
        (folder / "out" / "adapter.json").write_text("{}")
        return StageResult(stage=Stage.TRAIN)


def _prepare(_folder: Path, _stage: Stage, _number: int, **_needs: object) -> str:
    return "0" * 64


def _ignore(*_args: object, **_fields: object) -> None: ...


@pytest.fixture
def training(valkey: Valkey, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Training:
    return Training(valkey, settings, monkeypatch)


def test_a_training_that_is_done_does_not_wait_for_its_last_checkpoint(training: Training) -> None:
    began = time.monotonic()
    assert training.run()
    assert time.monotonic() - began < 2 * TTL_S
    assert training.keeps_its_lease
    assert training.checkpoints == []


@pytest.mark.parametrize("end", [StageStopped(StopReason.DRAINED), StageLost("killed")])
def test_who_goes_on_elsewhere_keeps_the_checkpoint_and_meanwhile_the_lease(
    training: Training, end: Exception
) -> None:
    with pytest.raises(type(end)):
        training.run(end)
    assert training.checkpoints == [Kept(STEP, 1)]
    assert training.keeps_its_lease


@pytest.mark.parametrize("end", [StageStopped(StopReason.CANCELLED), DataError("wrong")])
def test_who_does_not_go_on_frees_the_worker_at_once(training: Training, end: NSSTrainError) -> None:
    began = time.monotonic()
    with pytest.raises(type(end)):
        training.run(end)
    assert time.monotonic() - began < 2 * TTL_S
    assert training.checkpoints == []


def test_a_cancellation_ends_the_wait_for_the_checkpoint_of_a_worker_that_leaves(training: Training) -> None:
    client = threading.Thread(target=training.cancel_when_the_upload_has_begun)
    client.start()
    began = time.monotonic()
    with pytest.raises(StageStopped) as stopped:
        training.run(StageStopped(StopReason.DRAINED))
    client.join()
    assert stopped.value.reason is StopReason.CANCELLED
    assert time.monotonic() - began < 2 * TTL_S


@pytest.mark.parametrize("strict", [False, True])
def test_when_a_strictly_private_training_kept_its_state_is_seen_by_workers_alone(
    strict: bool, valkey: Valkey, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    training = Training(valkey, settings, monkeypatch, gate=Gate(strict=strict, raises=True))
    with pytest.raises(StageStopped):
        training.run(StageStopped(StopReason.DRAINED))
    assert training.checkpoints == [Kept(STEP, 1)]
    stored = list(training.records.store.list(f"{training.records.keys.root}/"))
    public = [
        key for key in stored if CHECKPOINTS in key and not key.startswith(training.records.keys.private)
    ]
    assert (training.told, training.counted, bool(public)) == (
        ([], 0, False) if strict else ([CHECKPOINT_SAVED], 1, True)
    )
