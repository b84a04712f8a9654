"""A draw of prepare_data is made once, and paid once, whatever dies when."""

from __future__ import annotations

import functools
import json
import stat
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from redis import Redis

from nss_train.config import parse_config
from nss_train.contract import Request, Stage
from nss_train.errors import BudgetExceeded, ParameterError
from nss_train.privacy.sketch import sketch
from tasks.execution.delivery import Superseded, Worker, run_stage
from tasks.execution.inputs import prepare_folder
from tasks.execution.processes.supervisor import run_child
from tasks.jobs.documents import JobRequest, Outcome, StageMessage
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.privacy.private_keys import SKETCH_KEY_OF_DEPLOYMENT
from tasks.jobs.privacy.same_data import noticed
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import describe_table, upload_table
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.local import LocalStore
from tasks.telemetry import counters
from tests.integration.tasks.drawing_stages import SKETCH_OF_TABLE

JOB = "job-0001"


class Death(BaseException):
    """The worker's machine died."""


class DyingStore(LocalStore):
    """A worker's store, until the worker dies at one of its changes."""

    def __init__(self, root: Path, dies: Callable[[str], bool], *, is_done: bool) -> None:
        super().__init__(root)
        self._dies = dies
        self._is_done = is_done
        self._dead = False

    def write(self, key: str, data: bytes) -> None:
        self._change(key, lambda: super(DyingStore, self).write(key, data))

    def put_if_absent(self, key: str, data: bytes) -> bool:
        return bool(self._change(key, lambda: super(DyingStore, self).put_if_absent(key, data)))

    def delete(self, key: str) -> None:
        self._change(key, lambda: super(DyingStore, self).delete(key))

    def _change(self, key: str, change: Callable[[], Any]) -> Any:
        if self._dead:
            raise Death
        self._dead = self._dies(key)
        done = change() if self._is_done or not self._dead else None
        if self._dead:
            raise Death
        return done

    def attended(self, look: Callable[[], None]) -> DyingStore:  # noqa: ARG002 - it dies as a whole
        return self


def nth(number: int, pattern: str) -> Callable[[str], bool]:
    """Return a test for the n-th change of keys that begin like this."""
    seen: Iterator[int] = iter(range(1, 100))
    return lambda key: key.startswith(pattern) and next(seen) == number


@pytest.fixture(autouse=True)
def _drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    drawing = functools.partial(run_child, module="tests.integration.tasks.drawing_stages")
    monkeypatch.setattr("tasks.execution.attempt.run_child", drawing)


@pytest.fixture
def worker(store: LocalStore, settings: Settings, redis: Redis) -> Worker:
    return worker_on(store, settings, redis)


def worker_on(store: Store, settings: Settings, redis: Redis) -> Worker:
    return Worker(
        name="test",
        store=store,
        redis=redis,
        settings=settings,
        send_event=lambda *_args, **_fields: None,
    )


def submitted(
    store: Store, folder: Path, *, dataset: str | None = "birds", source: str | None = None, **fields: Any
) -> JobRepository:
    table = folder / "t.csv"
    table.write_text("a,b\n1,2\n")
    # The figures contain what the stage draws, which a strict job's would not show.
    given = {"dataset": dataset, "schema_source": source}
    guarantee = {"strict": False} | {name: value for name, value in given.items() if value is not None}
    job_id = fields.pop("job_id", JOB)
    described = describe_table(table, strict=False)
    request = JobRequest(
        job_id=job_id,
        table=described,
        config=parse_config({"privacy": {"dp_enabled": True}, "guarantee": guarantee}),
        seed=1,
        submitted_at=datetime.now(UTC),
        **fields,
    )
    records = JobRepository(store, job_id)
    upload_table(table, records, str(described.input))
    assert records.submitted(request)
    return records


def prepare(worker: Worker, job_id: str = JOB) -> None:
    run_stage(StageMessage(job_id=job_id, stage=Stage.PREPARE_DATA), worker=worker)


def drawn(records: JobRepository) -> str:
    marker = records.marker(Stage.PREPARE_DATA)
    assert marker is not None
    return str(marker.figures["drawn"])


LEDGER, DRAWN, COMMITTED = "privacy/birds/0", f"jobs/{JOB}/private/draw", f"jobs/{JOB}/stages/"


@pytest.mark.parametrize("is_done", [False, True])
@pytest.mark.parametrize("step", [(1, LEDGER), (1, DRAWN), (2, LEDGER), (1, COMMITTED)])
def test_one_draw_charged_once_whenever_a_worker_dies(
    step: tuple[int, str], is_done: bool, worker: Worker, tmp_path: Path
) -> None:
    store, settings = worker.store, worker.settings
    records = submitted(store, tmp_path)
    dying = DyingStore(settings.home / "store", nth(*step), is_done=is_done)
    with pytest.raises(Death):
        prepare(worker_on(dying, settings, worker.redis))
    before = records.charges.draw()
    was_drawn = {(1, LEDGER): False, (1, DRAWN): is_done}
    assert (before is not None) is was_drawn.get(step, True)
    prepare(worker)
    kept = records.charges.draw()
    assert kept is not None
    assert before in (None, kept)
    assert drawn(records) == json.loads(kept)["noisy"]
    records.finish(Outcome.CANCELLED)
    records.tidy()
    (cost,) = DatasetLedger(store, "birds").read().costs
    assert (cost.settled, cost.by_products, cost.steps) == (True, True, 0)
    assert DatasetLedger(store, "birds").read().epsilon() == 0.1


def test_a_second_attempt_uses_the_draw_that_the_first_left(
    worker: Worker, store: LocalStore, tmp_path: Path
) -> None:
    records = submitted(store, tmp_path)
    store.write(records.keys.draw, b'{"noisy": "first"}')
    prepare(worker)
    assert drawn(records) == "first"
    assert records.charges.draw() == b'{"noisy": "first"}'


def test_a_price_that_is_refused_leaves_no_draw(worker: Worker, store: LocalStore, tmp_path: Path) -> None:
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r"}
    store.write("privacy/birds/00000001.json", json.dumps(older | {"epsilon": 0.05, "delta": 1e-6}).encode())
    records = submitted(store, tmp_path)
    with pytest.raises(BudgetExceeded):
        prepare(worker)
    assert records.charges.draw() is None
    assert DatasetLedger(store, "birds").read().costs == ()


def test_a_draw_is_charged_where_the_full_plan_is_refused(
    worker: Worker, store: LocalStore, tmp_path: Path
) -> None:
    """A draw may have been looked at, although nothing was committed."""
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r"}
    store.write("privacy/birds/00000001.json", json.dumps(older | {"epsilon": 0.15, "delta": 1e-6}).encode())
    records = submitted(store, tmp_path)
    with pytest.raises(BudgetExceeded):
        prepare(worker)
    assert records.marker(Stage.PREPARE_DATA) is None
    (cost,) = DatasetLedger(store, "birds").read().costs
    assert (cost.settled, cost.by_products) == (True, True)


def test_a_draw_that_comes_after_the_end_of_its_job_is_not_used(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    class TwinStore(LocalStore):
        """A store in which another worker ends the job, and settles it, just before the draw is put."""

        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key.endswith("private/draw.json"):
                JobRepository(self, JOB).finish(Outcome.FAILED)
                JobRepository(self, JOB).tidy()
            return super().put_if_absent(key, data)

    store = TwinStore(settings.home / "store")
    records = submitted(store, tmp_path)
    with pytest.raises(Superseded):
        prepare(worker_on(store, settings, redis))
    (cost,) = DatasetLedger(store, "birds").read().costs
    assert (cost.settled, cost.by_products) == (True, False)
    assert records.marker(Stage.PREPARE_DATA) is None


def in_folder(worker: Worker, records: JobRepository, folder: Path) -> tuple[dict[str, bytes], str]:
    (folder / "in").mkdir(parents=True)
    prepare_folder(folder, Stage.PREPARE_DATA, 1, records=records, worker=worker)
    request = Request.model_validate_json((folder / "request.json").read_bytes())
    private = folder / "in" / "private"
    assert stat.S_IMODE(private.stat().st_mode) == 0o700
    assert {stat.S_IMODE(file.stat().st_mode) for file in private.iterdir()} == {0o600}
    return {file.name: file.read_bytes() for file in private.iterdir()}, request.budget_name


def test_jobs_on_a_dataset_share_a_key_and_others_have_their_own(
    worker: Worker, store: LocalStore, tmp_path: Path
) -> None:
    name = f"job-{'a' * 32}"
    keys = []
    for number, dataset in enumerate(["birds", "birds", "bees", None]):
        records = submitted(
            store,
            tmp_path,
            dataset=dataset,
            job_id=f"job-000{number}",
            budget_name="" if dataset else name,
        )
        found, charged_to = in_folder(worker, records, tmp_path / str(number))
        assert charged_to == (dataset or name)
        assert {len(key) for key in found.values()} == {32}
        keys.append(found)
    assert keys[0] == keys[1]
    assert len({found["key"] for found in keys}) == 3
    assert {found["sketch-key"] for found in keys} == {store.read(SKETCH_KEY_OF_DEPLOYMENT)}
    assert in_folder(worker, JobRepository(store, "job-0003"), tmp_path / "again")[0] == keys[3]


def test_a_jobs_own_key_goes_with_it_and_a_datasets_stays(
    worker: Worker, store: LocalStore, tmp_path: Path
) -> None:
    for job_id, dataset in (("job-0001", "birds"), ("job-0002", None)):
        records = submitted(store, tmp_path, dataset=dataset, job_id=job_id)
        in_folder(worker, records, tmp_path / job_id)
        records.finish(Outcome.CANCELLED)
        records.tidy()
    assert store.exists("privacy/birds/private/key")
    assert not store.exists("jobs/job-0002/private/key")


def test_a_job_of_an_older_release_gets_a_name_that_says_nothing_of_its_table(
    worker: Worker, store: LocalStore, tmp_path: Path
) -> None:
    names = set()
    for job_id in ("job-0001", "job-0002"):
        records = submitted(store, tmp_path, dataset=None, job_id=job_id)
        _, name = in_folder(worker, records, tmp_path / job_id)
        assert in_folder(worker, records, tmp_path / f"{job_id}-again")[1] == name
        names.add(name)
    assert len(names) == 2


def test_no_secret_is_in_a_document_or_an_event(
    worker: Worker, store: LocalStore, redis: Redis, tmp_path: Path
) -> None:
    submitted(store, tmp_path)
    prepare(worker)
    secret = [store.read("privacy/birds/private/key"), store.read(SKETCH_KEY_OF_DEPLOYMENT)]
    streams = [key for key in redis.keys("*") if redis.type(key) == b"stream"]
    told = [store.read(key) for key in store.list("jobs/")]
    told += [str(redis.xrange(stream)).encode() for stream in streams]
    assert streams
    for one in secret:
        assert not any(one in text or one.hex().encode() in text for text in told)


def leave_sketch(settings: Settings, *, first: int) -> None:
    settings.models_dir.mkdir(parents=True, exist_ok=True)
    records = (b"%d" % number for number in range(first, first + 5000))
    (settings.models_dir / SKETCH_OF_TABLE).write_text(sketch(records, key=b"k" * 32).model_dump_json())


@pytest.mark.parametrize("rule", ["warn", "refuse"])
def test_the_same_table_under_another_name_is_told_to_the_operator(
    rule: str, worker: Worker, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    store, redis = worker.store, worker.redis
    settings = worker.settings.model_copy(update={"same_data": rule})
    worker = worker_on(store, settings, redis)
    submitted(store, tmp_path)
    leave_sketch(settings, first=0)
    prepare(worker)
    again = submitted(store, tmp_path, dataset="patients", job_id="job-0002")
    leave_sketch(settings, first=2500)
    if rule == "refuse":
        with pytest.raises(ParameterError, match="rules refuse") as caught:
            prepare(worker, "job-0002")
        assert "birds" not in str(caught.value)
        assert (outcome := again.outcome()) is not None
        assert "birds" not in outcome.model_dump_json()
    else:
        prepare(worker, "job-0002")
        assert again.marker(Stage.PREPARE_DATA) is not None
    (one,), (other,) = noticed(store, "patients"), noticed(store, "birds")
    assert (one.dataset, other.dataset) == ("birds", "patients")
    assert one.share == pytest.approx(0.5, abs=0.1)
    assert "privacy.same_data" in [getattr(record, "action", "") for record in caplog.records]
    assert counters.read(redis)["same_data"] == 1


@pytest.mark.parametrize(("source", "is_drawn"), [("raw", False), ("private", True)])
def test_a_table_is_another_dataset_s_once_that_was_charged_for_it(
    source: str, is_drawn: bool, worker: Worker, tmp_path: Path
) -> None:
    store, redis = worker.store, worker.redis
    settings = worker.settings.model_copy(update={"same_data": "refuse"})
    worker = worker_on(store, settings, redis)
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r", "delta": 1e-6}
    store.write("privacy/birds/00000001.json", json.dumps(older | {"epsilon": 0.15}).encode())
    refused = submitted(store, tmp_path, source=source)
    leave_sketch(settings, first=0)
    with pytest.raises(BudgetExceeded):
        prepare(worker)
    assert (refused.charges.draw() is not None) is is_drawn
    again = submitted(store, tmp_path, dataset="patients", job_id="job-0002")
    if is_drawn:
        with pytest.raises(ParameterError, match="rules refuse"):
            prepare(worker, "job-0002")
    else:
        prepare(worker, "job-0002")
        assert again.marker(Stage.PREPARE_DATA) is not None
    kept = {
        name: len(list(store.list(f"privacy/{name}/private/sketches/"))) for name in ("birds", "patients")
    }
    assert kept == {"birds": int(is_drawn), "patients": int(not is_drawn)}
