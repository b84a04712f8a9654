"""Releases side by side: what an older one wrote is read, what a newer one wrote is left to it.

``v1``, ``v2``, … hold documents as the releases of these versions wrote them; ``python -m tests.upgrades``
begins the next one.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import Stage
from nss_train.errors import InfrastructureError, Retry, StoreCorrupt
from tasks.app import make_app
from tasks.broker import queues
from tasks.broker.task_names import TASK_NAMES
from tasks.celery_tasks import read_message
from tasks.execution.checkpoints import CheckpointStore, Kept
from tasks.execution.delivery import NEWER_DELAY_S, TryLater, Worker, run_stage
from tasks.jobs import versioning
from tasks.jobs.documents import Claim, Outcome, StageMessage
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import PRIVATE_SINCE, JobRepository
from tasks.jobs.versioning import VERSION, NewerVersion
from tasks.local.valkey import Valkey
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.pipeline.conftest import worker
from tests.security.conftest import wait_until
from tests.security.test_messages import honest_job
from tests.unit.privacy.plans import plan
from tests.upgrades import __main__ as new_version

HERE = Path(__file__).parent
JOB = "20260101-000000-abcdef01"
VERSIONS = range(1, VERSION + 1)
NEWER = VERSION + 1


def recorded(version: int, folder: Path) -> LocalStore:
    shutil.copytree(HERE / f"v{version}" / "store", folder)
    return LocalStore(folder)


def message(version: int) -> Any:
    return json.loads((HERE / f"v{version}" / "message.json").read_text())


def test_there_is_a_record_of_each_version() -> None:
    assert {path.name for path in HERE.glob("v*")} == {f"v{version}" for version in VERSIONS}


def test_the_folder_of_a_new_version_holds_the_same_documents_with_its_number(tmp_path: Path) -> None:
    shutil.copytree(HERE / f"v{VERSION}", tmp_path / f"v{VERSION}")
    made = new_version.make(tmp_path, NEWER)
    files = [path for path in (HERE / f"v{VERSION}").rglob("*") if path.is_file()]
    for path in files:
        new, old = (made / path.relative_to(HERE / f"v{VERSION}")).read_bytes(), path.read_bytes()
        assert new == old.replace(b'"version": %d' % VERSION, b'"version": %d' % NEWER)
        assert new != old or b"version" not in old
    assert len(files) > 10
    with pytest.raises(FileExistsError):
        new_version.make(tmp_path, NEWER)


@pytest.mark.parametrize("version", VERSIONS)
def test_every_document_of_a_version_is_read(version: int, tmp_path: Path) -> None:
    store = recorded(version, tmp_path / "store")
    records = JobRepository(store, JOB)
    request, marker, outcome, cancel = (
        records.request(),
        records.marker(Stage.PREPARE_DATA),
        records.outcome(),
        records.cancellation(),
    )
    claim = records.read(records.keys.claim(Stage.PREPARE_DATA, 2), Claim)
    (ending,) = records.endings(Stage.PREPARE_DATA)
    assert (request.table.name, request.seed, request.idempotency_key) == ("t.csv", 7, "k")
    assert marker is not None
    assert marker.figures == {"rows": 3}
    assert outcome is not None
    assert outcome.outcome is Outcome.CANCELLED
    assert str(cancel) == "x (by y)"
    assert claim is not None
    assert claim.worker == "cpu@test"
    assert ending.retry is Retry.SAME_WORKER
    assert {one.version for one in (request, marker, outcome, cancel, claim, ending) if one} == {version}
    assert records.charges.taken() == 5
    assert DatasetLedger(store, "birds").read().budget is not None
    assert CheckpointStore(store, records.keys).restore(tmp_path / "checkpoint") == Kept(10, 1)
    assert read_message(message(version), store) == StageMessage(
        version=version, job_id=JOB, stage=Stage.PREPARE_DATA
    )


@pytest.mark.parametrize("version", VERSIONS)
def test_the_table_and_all_that_a_stage_made_are_found_where_a_version_put_them(
    version: int, tmp_path: Path
) -> None:
    records = JobRepository(recorded(version, tmp_path / "store"), JOB)
    marker, table = records.marker(Stage.PREPARE_DATA), records.table_file(records.request())
    assert marker is not None
    assert table is not None
    made = [file.path for file in records.committed(marker).files]
    folder = "private/input" if version >= PRIVATE_SINCE else "input"
    assert made == ["config.json", "train.arrow"][: 2 if version >= PRIVATE_SINCE else 1]
    assert table.key == f"jobs/{JOB}/{folder}/{'0' * (32 if version >= PRIVATE_SINCE else 64)}"


def test_a_marker_whose_private_part_is_gone_is_no_preparation_of_nothing(tmp_path: Path) -> None:
    records = JobRepository(recorded(PRIVATE_SINCE, tmp_path / "store"), JOB)
    marker = records.marker(Stage.PREPARE_DATA)
    assert marker is not None
    records.store.delete(records.keys.private_files(Stage.PREPARE_DATA, marker.attempt))
    with pytest.raises(StoreCorrupt, match="is gone"):
        records.committed(marker)


@pytest.mark.parametrize("version", VERSIONS)
def test_work_goes_on_from_what_a_version_left(version: int, tmp_path: Path) -> None:
    records = JobRepository(recorded(version, tmp_path / "store"), JOB)
    assert records.claim(Stage.PREPARE_DATA, worker="new", max_attempts=2) == 3
    assert records.charges.begin(3) == 5
    records.charges.record(3, 2)
    assert records.charges.taken() == 7
    ledger = DatasetLedger(records.store, "birds")
    ledger.set_budget(epsilon=5, delta=1e-6, by="board", reason="more")
    assert len(ledger.read().entries) == 2


def make_newer(store: LocalStore, key: str) -> None:
    document = json.loads(store.read(key))
    store.write(key, json.dumps(document | {"version": NEWER, "unheard_of": {"x": 1}}).encode())


NEWER_KEYS = {
    "request": (f"jobs/{JOB}/request.json", Stage.PREPARE_DATA),
    "marker": (f"jobs/{JOB}/stages/prepare_data.json", Stage.LOAD_MODEL),
    "claim": (f"jobs/{JOB}/attempts/prepare_data/2/claim.json", Stage.PREPARE_DATA),
    "ending": (f"jobs/{JOB}/attempts/prepare_data/1/ending.json", Stage.PREPARE_DATA),
    "cancel": (f"jobs/{JOB}/cancel.json", Stage.PREPARE_DATA),
    "outcome": (f"jobs/{JOB}/outcome.json", Stage.PREPARE_DATA),
    "checkpoint": (f"jobs/{JOB}/checkpoints/10/1/manifest.json", Stage.TRAIN),
}


@pytest.mark.parametrize("name", NEWER_KEYS)
def test_a_job_of_a_newer_release_is_left_to_it_untouched(
    name: str, settings: Settings, valkey: Valkey
) -> None:
    key, stage = NEWER_KEYS[name]
    store = recorded(VERSION, settings.home / "store")
    for other in ("outcome.json", "cancel.json", "stages/prepare_data.json"):
        if not key.endswith(other) and not (stage is Stage.TRAIN and other.startswith("stages")):
            store.delete(f"jobs/{JOB}/{other}")
    if stage is Stage.TRAIN:
        marker = json.loads(store.read(f"jobs/{JOB}/stages/prepare_data.json"))
        store.write(
            f"jobs/{JOB}/stages/load_model.json", json.dumps(marker | {"stage": "load_model"}).encode()
        )
    make_newer(store, key)
    before = snapshot(store)
    app = make_app(settings)
    doing = Worker(
        name="old@test", store=store, redis=app.redis, settings=settings, send_event=lambda *_, **__: None
    )
    with pytest.raises(TryLater, match="upgrade it") as caught:
        run_stage(StageMessage(job_id=JOB, stage=stage), worker=doing)
    assert caught.value.delay_s == NEWER_DELAY_S
    assert snapshot(store) == before
    assert not app.redis.exists(f"nss-train:lease:{JOB}:{stage}")


def snapshot(store: LocalStore) -> dict[str, bytes]:
    return {key: store.read(key) for folder in ("jobs/", "open/") for key in store.list(folder)}


PRIVATE_CHARGES_SINCE = 6


@pytest.fixture
def begun(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> JobRepository:
    """Return a job of the last release that paid in public, whose training this one began.

    From now on that release looks at it: it knows no newer version, and not ``private/charges/``.
    """
    store = recorded(PRIVATE_CHARGES_SINCE - 1, settings.home / "store")
    records = JobRepository(store, JOB)
    store.delete(records.keys.cancel)
    marker = json.loads(store.read(records.keys.marker(Stage.PREPARE_DATA)))
    store.write(records.keys.marker(Stage.LOAD_MODEL), json.dumps(marker | {"stage": "load_model"}).encode())
    records.charges.reserve(plan().model_dump(mode="json"))
    attempt = records.claim(Stage.TRAIN, worker="new", max_attempts=2)
    records.charges.begin(attempt)
    records.charges.record(attempt, 7)
    for key in list(store.list("privacy/birds/")):
        store.write(key, store.read(key).replace(b'"version": 6', b'"version": 5'))
    store.delete(records.keys.charge(attempt))
    monkeypatch.setattr(versioning, "VERSION", PRIVATE_CHARGES_SINCE - 1)
    return records


def test_an_older_release_hands_back_a_training_whose_charges_it_does_not_see(
    begun: JobRepository, settings: Settings, valkey: Valkey
) -> None:
    begun.store.delete(begun.keys.outcome)
    before, app = snapshot(begun.store), make_app(settings)
    doing = Worker(
        name="old@test",
        store=begun.store,
        redis=app.redis,
        settings=settings,
        send_event=lambda *_, **__: None,
    )
    with pytest.raises(TryLater, match=r"train/1/claim\.json has version 6"):
        run_stage(StageMessage(job_id=JOB, stage=Stage.TRAIN), worker=doing)
    assert snapshot(begun.store) == before


def test_an_older_release_settles_no_job_whose_charges_it_does_not_see(begun: JobRepository) -> None:
    """Its client may have ended the job, so that the outcome is of its own version."""
    with pytest.raises(NewerVersion, match=r"privacy/1\.json has version 6"):
        begun.settle()
    assert DatasetLedger(begun.store, "birds").read().settlement(JOB) is None


def test_a_ledger_with_a_newer_entry_is_not_written_to(tmp_path: Path) -> None:
    store = recorded(VERSION, tmp_path / "store")
    make_newer(store, "privacy/birds/00000001.json")
    with pytest.raises(NewerVersion):
        DatasetLedger(store, "birds").set_budget(epsilon=9, delta=1e-6, by="x", reason="x")
    assert list(store.children("privacy/birds/")) == ["00000001.json"]


@pytest.mark.parametrize("found", [0, -1, "2", 1.5, None, [2], True])
def test_a_version_that_is_none_is_no_document(found: object, tmp_path: Path) -> None:
    store = recorded(VERSION, tmp_path / "store")
    key = f"jobs/{JOB}/request.json"
    store.write(key, json.dumps(json.loads(store.read(key)) | {"version": found}).encode())
    with pytest.raises(InfrastructureError, match="is not a JobRequest") as caught:
        JobRepository(store, JOB).request()
    assert not isinstance(caught.value, NewerVersion)


def test_reconcile_leaves_newer_jobs_alone_and_the_others_in_peace(
    settings: Settings, valkey: Valkey
) -> None:
    app = make_app(settings)
    store = recorded(VERSION, settings.home / "store")
    store.delete(f"jobs/{JOB}/outcome.json")
    make_newer(store, f"jobs/{JOB}/stages/prepare_data.json")
    other = "20260101-000000-other001"
    honest_job(app, other)
    sent = reconcile(app, after_s=0)
    assert other in sent
    assert JOB not in sent


@pytest.fixture
def older(tmp_path: Path) -> Iterator[tuple[Settings, Path, Any]]:
    """Run a worker that meets a message of a newer release."""
    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as valkey:
        given = {"home": tmp_path / "home", "broker_url": valkey.url, "reconcile_every_s": 0}
        settings, log = Settings.model_validate(given), tmp_path / "cpu.log"
        newer = {"job_id": JOB, "stage": "prepare_data", "version": NEWER, "shape": "new"}
        app = make_app(settings)
        honest_job(app, JOB)
        make_newer(LocalStore(settings.home / "store"), f"jobs/{JOB}/request.json")
        app.send_task(TASK_NAMES[Stage.PREPARE_DATA], kwargs={"message": newer})
        with worker(settings, "cpu", log) as process:
            yield settings, log, process


def test_an_older_worker_hands_a_newer_message_back_and_leaves_in_peace(
    older: tuple[Settings, Path, Any],
) -> None:
    settings, log, process = older
    redis = make_app(settings).redis
    wait_until(lambda: f"A message has version {NEWER}" in log.read_text())
    wait_until(lambda: queues.waiting(redis, settings)["cpu"] == 1)
    met = log.read_text().count(f"A message has version {NEWER}; this release")
    time.sleep(1)
    assert log.read_text().count(f"A message has version {NEWER}; this release") == met == 1
    process.terminate()
    started = time.monotonic()
    process.wait(30)
    assert time.monotonic() - started < 15
    assert queues.waiting(redis, settings)["cpu"] == 1
    assert redis.zcard("unacked_index") == 0
    assert list(LocalStore(settings.home / "store").list(f"jobs/{JOB}/")) == [f"jobs/{JOB}/request.json"]
