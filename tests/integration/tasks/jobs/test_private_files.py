"""A strictly private stage shows what it reads to its operator alone, whatever it does with it."""

from __future__ import annotations

import functools
import json
import logging
import traceback
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NoReturn

import pytest
from redis import Redis

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import LimitExceeded, OutOfMemory
from nss_train.privacy.observables import INSIDE
from tasks.broker.workers import read as presences
from tasks.client import Client
from tasks.execution.delivery import TryLater, Worker, run_stage
from tasks.execution.processes.supervisor import run_child
from tasks.execution.unseen import Unseen
from tasks.jobs.documents import AttemptEnd, JobRequest, StageMessage, TableFile
from tasks.jobs.keys import RESERVED
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import Webhook
from tasks.jobs.table import describe_table, upload_table
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tasks.status import read_status
from tasks.store.local import LocalStore
from tasks.telemetry.counters import read as counts
from tasks.telemetry.histograms import STAGE_SECONDS
from tasks.webhooks import delivery
from tasks.worker.announce import Devices, _say
from tests.integration.tasks.leaky_stages import CELL

JOB = "job-0001"
REASON = f"{JOB}.prepare_data.1"


class Leaky:
    """A strictly private job, and everything that is seen of it by others than its operator."""

    def __init__(self, behaviour: str, settings: Settings, redis: Redis, folder: Path) -> None:
        self.settings = settings.model_copy(update={"unlisted_raises": False})
        self.redis = redis
        self.records = JobRepository(LocalStore(settings.home / "store"), JOB)
        self.events: list[str] = []
        self.error: BaseException | None = None
        table = folder / f"{CELL}.csv"
        table.write_text(f"name\n{CELL}\n")
        described = describe_table(table, strict=True)
        upload_table(table, self.records, str(described.input))
        given: dict[str, Any] = {
            "privacy": {"dp_enabled": True, "delta": 1e-5},
            "guarantee": {"dataset": behaviour, "schema_source": "declared"},
        }
        request = JobRequest(
            job_id=JOB,
            table=described,
            config=parse_config(given),
            seed=1,
            submitted_at=datetime.now(UTC),
            webhook=Webhook(url="https://hooks.example/x", progress=True),
        )
        assert self.records.submitted(request)

    def run(self) -> None:
        worker = Worker(
            name="test",
            store=self.records.store,
            redis=self.redis,
            settings=self.settings,
            send_event=lambda *args, **fields: self.events.append(f"{args} {fields}"),
        )
        try:
            run_stage(StageMessage(job_id=JOB, stage=Stage.PREPARE_DATA), worker=worker)
        except Exception as error:  # noqa: BLE001 (what Celery sends on with its traceback)
            self.error = error

    def seen(self) -> Iterator[str]:
        """Yield store, broker, events, status, notices, log and the exception with its traceback."""
        store = self.records.store
        for folder in RESERVED:
            for key in store.list(f"{folder}/"):
                if not key.startswith(self.records.keys.private):
                    yield f"{key}: {store.read(key).decode(errors='replace')}"
        for key in self.redis.scan_iter("*"):
            kind = self.redis.type(key)
            read = {b"stream": self.redis.xrange, b"hash": self.redis.hgetall, b"string": self.redis.get}
            yield f"{key!r}: {read[kind](key)!r}" if kind in read else repr(key)
        yield from self.events
        yield read_status(self.records).model_dump_json()
        yield from (notice.body() for notice in delivery.notices(self.records))
        yield Client(self.settings).logs(JOB)
        if self.error is not None:
            yield "".join(traceback.format_exception(self.error))

    def private_log(self) -> str:
        return Client(self.settings).logs(JOB, private=True)


BEHAVIOURS = ["tells", "quotes", "crashes", "memory", "lost"]


@pytest.fixture(params=BEHAVIOURS)
def leaky(
    request: pytest.FixtureRequest,
    valkey: Valkey,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Leaky:
    child = functools.partial(run_child, module="tests.integration.tasks.leaky_stages")
    monkeypatch.setattr("tasks.execution.attempt.run_child", child)
    redis = Redis.from_url(valkey.url)
    redis.flushall()
    return Leaky(request.param, settings, redis, tmp_path)


def test_nothing_of_a_cell_is_seen_but_by_the_operator(
    leaky: Leaky, request: pytest.FixtureRequest, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    leaky.run()
    found = [*leaky.seen(), caplog.text]
    assert not [text for text in found if CELL in text]
    assert CELL in leaky.private_log()
    behaviour = request.node.callspec.params["leaky"]
    shown = {"tells": shows_what_is_listed, "lost": names_its_kind_alone, "memory": names_the_limit_alone}
    shown.get(behaviour, says_where_the_reason_is)(leaky)


def shows_what_is_listed(leaky: Leaky) -> None:
    marker = leaky.records.marker(Stage.PREPARE_DATA)
    assert marker is not None
    assert marker.figures == {"columns": 1}
    assert [file.path for file in marker.files] == ["config.json"]
    private = {file.path for file in leaky.records.committed(marker).files} - {"config.json"}
    assert private == {"train.arrow", "unheard-of.json"}
    assert (marker.started_at.second, marker.finished_at.microsecond) == (0, 0)
    assert read_status(leaky.records).stages[0].seconds in (60, 120)
    assert Client(leaky.settings).logs(JOB).splitlines() == [
        "stage.started",
        "prepare.started",
        "prepare.done",
    ]
    (bucket,) = [name for name in leaky.redis.hgetall(STAGE_SECONDS.key) if not name.endswith(b"sum_ms")]
    assert bucket == b"prepare_data|succeeded|60"
    assert not leaky.redis.exists("nss-train:totals")


def names_its_kind_alone(leaky: Leaky) -> None:
    assert isinstance(leaky.error, TryLater)
    told = f"The stage's process ended without a result ({REASON})."
    assert read_status(leaky.records).stages[0].retries == (f"attempt 1 failed: {told}",)
    assert counts(leaky.redis)["retried_other_worker"] == 1


def names_the_limit_alone(leaky: Leaky) -> None:
    assert str(leaky.error) == f"{LimitExceeded.told} ({REASON})."
    assert not [name for name, number in counts(leaky.redis).items() if name.startswith("retried") and number]


def says_where_the_reason_is(leaky: Leaky) -> None:
    assert str(leaky.error) == f"{INSIDE} ({REASON})."
    assert REASON in leaky.private_log()
    kept = leaky.records.read(leaky.records.keys.private_ending(Stage.PREPARE_DATA, 1), AttemptEnd)
    assert kept is not None
    assert kept.reason == REASON
    assert CELL in json.dumps(kept.error)
    assert not [name for name, number in counts(leaky.redis).items() if name.startswith("retried") and number]


@pytest.mark.parametrize("leaky", ["lost"], indirect=True)
def test_who_goes_on_knows_that_memory_ran_out_and_nobody_else(
    leaky: Leaky, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: object, **__: object) -> NoReturn:
        raise OutOfMemory(f"no room for {CELL}")

    monkeypatch.setattr("tasks.execution.attempt.run_child", out_of_memory)
    leaky.run()
    (known,) = leaky.records.endings(Stage.PREPARE_DATA)
    (told,) = leaky.records.told_endings(Stage.PREPARE_DATA)
    assert known.retry == "smaller_batch"
    assert told.retry is None


@pytest.mark.parametrize("leaky", ["tells"], indirect=True)
def test_what_a_table_is_lies_with_it(leaky: Leaky) -> None:
    request = leaky.records.request()
    assert (request.table.name, request.table.sha256, request.table.bytes) == ("table.csv", None, None)
    file = leaky.records.table_file(request)
    assert isinstance(file, TableFile)
    assert file.key.startswith(leaky.records.keys.private)
    assert leaky.records.store.size(file.key) == file.bytes


def test_a_worker_at_a_strictly_private_stage_tells_no_memory(valkey: Valkey) -> None:
    redis, unseen, devices = Redis.from_url(valkey.url), Unseen(), Devices(())
    devices.used_bytes = {"0": 2**30}
    with unseen.here():
        _say(redis, "cuda@a", devices, unseen)
        assert presences(redis)["cuda@a"].gpu_bytes == {}
    _say(redis, "cuda@a", devices, unseen)
    assert presences(redis)["cuda@a"].gpu_bytes == {"0": 2**30}
