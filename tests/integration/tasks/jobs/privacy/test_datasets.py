"""Ownership of a dataset: checked when a job is submitted, by client or message, and by the worker again."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import Stage
from nss_train.errors import ParameterError
from nss_train.text.names import UNNAMED
from tasks import celery_tasks
from tasks.app import App, make_app
from tasks.client import Client
from tasks.execution.inputs import Worker, prepare_folder
from tasks.jobs.documents import JobRequest
from tasks.jobs.ids import id_of_key
from tasks.jobs.privacy.datasets import check_access, prove
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings
from tasks.store.base import StoreRefuses
from tasks.store.local import LocalStore

PRIVATE = {"privacy": {"dp_enabled": True}}
BIRDS = PRIVATE | {"guarantee": {"dataset": "birds", "unit_column": "nest"}}


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("nest,b\n1,2\n3,4\n")
    return path


@pytest.fixture
def token(store: LocalStore) -> str:
    found = DatasetLedger(store, "birds").set_budget(
        epsilon=8, delta=1e-5, by="op", reason="", unit="value of nest", owner="aviary"
    )
    assert found.token is not None
    return found.token


def submit(settings: Settings, table: Path, **given: Any) -> JobRequest:
    given = {"config": BIRDS, "tenant": "aviary"} | given
    job_id = Client(settings).submit(table=table, **given)
    return JobRepository(make_app(settings).store, job_id).request()


@pytest.mark.usefixtures("app")
def test_the_owner_is_let_in_and_sends_a_proof_instead_of_the_token(
    settings: Settings, table: Path, token: str
) -> None:
    given = submit(settings, table, dataset_token=token)
    by_setting = submit(settings.model_copy(update={"dataset_token": _secret(token)}), table)
    for request in (given, by_setting):
        assert request.dataset_proof == prove(token, request.job_id)
        assert token not in request.model_dump_json()
        assert request.budget_name == ""
    assert given.dataset_proof != by_setting.dataset_proof


def _secret(text: str) -> Any:
    return Settings.model_validate({"dataset_token": text}).dataset_token


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"tenant": "thief"}, "belongs to another owner"),
        ({"dataset_token": None}, "its token is missing"),
        ({"dataset_token": "guess"}, "not the token of this dataset"),
        (
            {"config": PRIVATE | {"guarantee": {"dataset": "birds"}}},
            "protects values of `nest`; this job protects records",
        ),
    ],
)
def test_who_may_not_use_a_dataset_is_refused_before_anything_is_stored(
    given: dict[str, Any], says: str, app: App, table: Path, token: str
) -> None:
    with pytest.raises(ParameterError, match=says):
        submit(app.settings, table, **({"dataset_token": token} | given))
    assert list(app.store.list("jobs/")) == []
    assert DatasetLedger(app.store, "birds").read().costs == ()
    submit(app.settings, table, dataset_token=token)


@pytest.mark.parametrize("honest", [True, False])
def test_a_message_proves_itself_as_a_client_does(honest: bool, settings: Settings, token: str) -> None:
    app = make_app(settings.model_copy(update={"allowed_table_uris": ("s3://tables/",)}))
    app.redis.flushall()
    job_id = id_of_key("k")
    message = {
        "table": "s3://tables/t.csv",
        "config": BIRDS,
        "tenant": "aviary",
        "idempotency_key": "k",
        "dataset_proof": prove(token, job_id if honest else "another-job"),
    }
    if honest:
        celery_tasks._submit(app, message, task_id="task-00001")
        assert JobRepository(app.store, job_id).request().dataset_proof == message["dataset_proof"]
        return
    with pytest.raises(ParameterError, match="not the token"):
        celery_tasks._submit(app, message, task_id="task-00001")
    outcome = JobRepository(app.store, job_id).outcome()
    assert outcome is not None
    assert message["dataset_proof"] not in outcome.model_dump_json()


@pytest.mark.parametrize("proof", ["", "z" * 64, "a" * 63, ["a"], "A" * 64])
def test_what_is_no_proof_is_refused_with_the_message(proof: Any, app: App) -> None:
    with pytest.raises(ParameterError, match="dataset_proof"):
        celery_tasks._submit(
            app, {"table": "s3://t/t.csv", "config": {}, "dataset_proof": proof}, task_id="task-00001"
        )


@pytest.mark.parametrize(
    ("config", "is_known"),
    [(PRIVATE, False), (PRIVATE | {"guarantee": {"dataset": "bees"}}, False), ({}, True)],
)
def test_where_only_known_datasets_are_allowed_others_are_refused(
    config: dict[str, Any], is_known: bool, app: App, table: Path
) -> None:
    known = app.settings.model_copy(update={"datasets": "known"})
    if is_known:
        submit(known, table, config=config)
        return
    with pytest.raises(ParameterError, match="is not known here; ask for `budget set`") as caught:
        submit(known, table, config=config)
    assert [problem.field for problem in caught.value.problems] == ["guarantee.dataset"]
    submit(app.settings, table, config=config)


@pytest.mark.usefixtures("app")
def test_a_budget_makes_a_dataset_known_with_an_owner_and_without(
    settings: Settings, table: Path, token: str, store: LocalStore
) -> None:
    known = settings.model_copy(update={"datasets": "known"})
    submit(known, table, dataset_token=token)
    older = b'{"kind":"budget","at":"2026-01-01T00:00:00Z","by":"b","reason":"r","epsilon":3.0,"delta":1e-6}'
    store.write("privacy/bees/00000001.json", older)
    submit(known, table, config=PRIVATE | {"guarantee": {"dataset": "bees"}})


def worker_of(app: App, settings: Settings) -> Worker:
    return Worker(
        name="test", store=app.store, redis=app.redis, settings=settings, send_event=lambda *_a, **_f: None
    )


def test_the_worker_asks_again_by_its_own_rule(app: App, table: Path, tmp_path: Path) -> None:
    """A client's settings do not bind the worker."""
    records = JobRepository(app.store, submit(app.settings, table, config=PRIVATE).job_id)
    worker = worker_of(app, app.settings.model_copy(update={"datasets": "known"}))
    (tmp_path / "in").mkdir()
    with pytest.raises(ParameterError, match="is not known here"):
        prepare_folder(tmp_path, Stage.PREPARE_DATA, 1, records=records, worker=worker)
    assert list((tmp_path / "in").iterdir()) == []


def test_a_client_that_may_not_read_what_is_private_leaves_the_answer_to_the_worker(
    app: App, table: Path, token: str
) -> None:
    class ClientsStore(LocalStore):
        def read(self, key: str) -> bytes:
            if "/private/" in key:
                raise StoreRefuses(f"The store refuses {key}.")
            return super().read(key)

    request = submit(app.settings, table, dataset_token=token)
    stranger = request.model_copy(update={"tenant": "thief"})
    check_access(ClientsStore(app.settings.home / "store"), stranger, known_only=True)
    with pytest.raises(ParameterError):
        check_access(app.store, stranger, known_only=True)


@pytest.mark.usefixtures("app")
def test_a_job_without_a_dataset_gets_a_name_of_its_own(settings: Settings, table: Path) -> None:
    names = {submit(settings, table, config=PRIVATE).budget_name for _ in range(2)}
    assert len(names) == 2
    assert all(re.fullmatch(UNNAMED, name) for name in names)
    assert submit(settings, table, config={}).budget_name == ""


@pytest.mark.usefixtures("app")
def test_the_name_of_a_job_is_kept_when_it_is_submitted_again(settings: Settings, table: Path) -> None:
    first, again = (submit(settings, table, config=PRIVATE, idempotency_key="k", seed=1) for _ in range(2))
    assert first.budget_name == again.budget_name


@pytest.mark.usefixtures("app")
def test_a_drawn_name_cannot_be_declared(settings: Settings, table: Path) -> None:
    with pytest.raises(ParameterError, match="form of names that are drawn"):
        submit(settings, table, config=PRIVATE | {"guarantee": {"dataset": f"job-{'a' * 32}"}})
