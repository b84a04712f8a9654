"""The state that a submission leaves when something goes wrong in the middle of it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Ignore, Retry
from redis.exceptions import NoPermissionError

from nss_train.contract import Stage
from nss_train.errors import BrokerUnavailable, DataError, ParameterError, StoreUnavailable
from tasks import celery_tasks
from tasks.app import App, make_app
from tasks.broker import queues
from tasks.client import Client
from tasks.jobs.documents import Outcome, StageMessage
from tasks.jobs.ids import id_of_key
from tasks.jobs.keys import Keys
from tasks.jobs.repository import JobRepository
from tasks.jobs.stage_files import sha256_of
from tasks.jobs.table import table_at
from tasks.jobs.versioning import Unreadable
from tasks.scheduling import admission
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n1,2\n3,4\n")
    return path


def fails(error: Exception) -> Any:
    def function(*_: Any, **__: Any) -> Any:
        raise error

    return function


def run(app: App, name: str, arguments: Mapping[str, Any], *, retries: int = 0) -> None:
    """Run a task as a worker does."""
    task = app.tasks[name]
    where = {"routing_key": "cpu"}
    task.push_request(id="t-0000001", retries=retries, called_directly=False, delivery_info=where)
    try:
        task.run(**arguments)
    finally:
        task.pop_request()


def test_a_broker_that_goes_away_after_the_request_is_stored_delays_the_job_only(
    app: App, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as away:
        away.setattr(admission, "ask", fails(ConnectionError("reset")))
        job_id = Client(app.settings).submit(table=table, idempotency_key="k")
    assert app.redis.llen("cpu") == 0
    assert reconcile(app, after_s=0) == [job_id]


def test_an_upload_whose_client_died_is_found_and_shown_to_nobody(
    app: App, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(app.settings)
    with monkeypatch.context() as away:
        away.setattr(JobRepository, "submitted", fails(KeyboardInterrupt()))
        with pytest.raises(KeyboardInterrupt):
            client.submit(table=table, idempotency_key="k")
    assert list(app.store.list("jobs/"))
    assert list(app.store.children("open/")) == [id_of_key("k")]
    assert list(client.list()) == []


def test_a_key_that_is_taken_leaves_no_other_table(app: App, table: Path) -> None:
    client = Client(app.settings)
    job_id = client.submit(table=table, idempotency_key="k", seed=1)
    before = list(app.store.list(f"jobs/{job_id}/"))
    table.write_text("a,b\n5,6\n7,8\n")
    with pytest.raises(ParameterError, match="key is taken"):
        client.submit(table=table, idempotency_key="k", seed=1)
    assert list(app.store.list(f"jobs/{job_id}/")) == before


def test_a_request_names_its_table_at_random_and_knows_it_again(app: App, table: Path) -> None:
    client, private = Client(app.settings), {"privacy": {"dp_enabled": True}}
    table = table.rename(table.with_name("erika.csv"))
    job_id = client.submit(table=table, config=private, idempotency_key="k", seed=1)
    assert client.submit(table=table, config=private, idempotency_key="k", seed=1) == job_id
    request = app.store.read(Keys(job_id).request)
    assert sha256_of(table).encode() not in request
    assert b"erika" not in request
    assert b'"bytes": null' in request
    names = [key.removeprefix(Keys(job_id).private) for key in app.store.list(Keys(job_id).private)]
    assert [re.sub("[0-9a-f]{32}", "RANDOM", name) for name in names] == ["input/RANDOM", "input/RANDOM.json"]


def test_an_upload_that_another_was_faster_than_is_gone(
    app: App, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = Client(app.settings)
    job_id = client.submit(table=table, idempotency_key="k", seed=1)
    before = list(app.store.list(f"jobs/{job_id}/"))
    monkeypatch.setattr(JobRepository, "is_submitted", lambda _: False)
    assert client.submit(table=table, idempotency_key="k", seed=1) == job_id
    assert list(app.store.list(f"jobs/{job_id}/")) == before


def test_a_uri_of_an_unknown_format_is_refused_before_it_is_fetched(settings: Settings) -> None:
    allowing = settings.model_copy(update={"allowed_table_uris": ("s3://tables/",)})
    with pytest.raises(DataError, match=r"unknown format; the name must end in one of \.csv"):
        table_at("s3://tables/t.xls", allowing)


@pytest.mark.parametrize(
    ("key", "content", "sent"),
    [
        ("jobs/{}/outcome.json", b"{}", 1),
        ("jobs/{}/request.json", b"\x80", 1),
        ("jobs/{}/attempts/prepare_data/README", b"", 2),
        ("open/README", b"", 2),
        ("open/aaaaaaa", b"", 2),
        ("jobs/README", b"", 2),
    ],
)
def test_a_document_that_cannot_be_read_keeps_no_other_job_waiting(
    key: str, content: bytes, sent: int, app: App, table: Path
) -> None:
    client = Client(app.settings)
    jobs = sorted(client.submit(table=table) for _ in range(2))
    app.redis.flushall()
    admission.note(app.redis, jobs[0], "default")
    app.store.write(key.format(jobs[0]), content)
    assert reconcile(app, after_s=0) == jobs[-sent:]
    assert [status.job_id for status in client.list()] == jobs[-sent:]
    assert sent == 2 or set(admission.in_flight(app.redis)) == {jobs[1]}


def test_a_held_job_that_cannot_be_read_keeps_nobody_from_beginning(app: App, table: Path) -> None:
    client = Client(app.settings)
    jobs = [client.submit(table=table) for _ in range(2)]
    app.redis.flushall()
    for job_id in jobs:
        admission.hold(app.redis, JobRepository(app.store, job_id).request())
    app.store.write(Keys(jobs[0]).outcome, b"{}")
    assert admission.admit(app) == [jobs[1]]
    assert admission.held(app.redis) == set()


@pytest.mark.parametrize("error", [StoreUnavailable("away"), BrokerUnavailable("away")])
def test_a_message_that_meets_no_store_comes_again(
    app: App, error: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(celery_tasks, "RETRY_DELAY_S", 0)
    monkeypatch.setattr(celery_tasks, "submit_message", fails(error))
    # The hundredth attempt: no number of retries loses the message.
    with pytest.raises(Retry):
        run(app, "nss_train.submit", {"table": "s3://tables/t.csv", "config": {}}, retries=99)
    assert app.redis.llen("cpu") == 1


@pytest.mark.parametrize("document", ["request", "outcome"])
def test_a_message_of_a_job_that_cannot_be_read_comes_once(document: str, app: App, table: Path) -> None:
    job_id = Client(app.settings).submit(table=table, idempotency_key="k")
    app.redis.flushall()
    app.store.write(getattr(Keys(job_id), document), b"{}")
    app.settings = app.settings.model_copy(update={"allowed_table_uris": ("s3://tables/",)})
    stage = {"message": StageMessage(job_id=job_id, stage=Stage.PREPARE_DATA).model_dump(mode="json")}
    with pytest.raises(Ignore, match="is not a"):
        run(app, "nss_train.prepare_data", stage)
    if document == "request":
        message = {"table": "s3://tables/t.csv", "config": {}, "idempotency_key": "k"}
        with pytest.raises(Unreadable):
            run(app, "nss_train.submit", message)
    assert queues.waiting(app.redis, app.settings) == {"cpu": 0, "cuda": 0}


def test_a_broker_that_refuses_at_the_end_names_the_job_that_is_stored(
    app: App, table: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as refusing:
        refusing.setattr(admission, "ask", fails(NoPermissionError("lpush")))
        with pytest.raises(BrokerUnavailable, match="do not submit it again") as caught:
            Client(app.settings).submit(table=table)
    job_id = next(problem.value for problem in caught.value.problems if problem.field == "job_id")
    assert reconcile(app, after_s=0) == [job_id]


def test_the_queues_of_all_shapes_are_guarded(settings: Settings) -> None:
    shapes = settings.model_copy(update={"cuda_queues": {"cuda-24g": 24.0, "cuda-80g": 80.0}})
    options = make_app(shapes).conf.broker_transport_options
    assert set(options["guarded_queues"]) == {"cpu", "cuda-24g", "cuda-80g"}


@pytest.mark.parametrize(
    ("wrong", "fields"),
    [
        ({"tabel": "x.csv", "webhok": "https://h.example/T0?token=sesame"}, {"table", "tabel", "webhok"}),
        ({"table": "s3://t/t.csv", "webhook": ["https://h.example/T0?token=sesame"]}, {"webhook"}),
        ({"table": "s3://t/t.csv", "config": "hf_token: sesame"}, {"config"}),
        ({"table": "s3://t/t.csv", "idempotency_key": "sesame" * 200}, {"idempotency_key"}),
    ],
)
def test_a_refusal_shows_nothing_that_may_be_secret(
    wrong: dict[str, Any], fields: set[str], app: App
) -> None:
    with pytest.raises(ParameterError) as caught:
        celery_tasks._submit(app, {"config": {}} | wrong, task_id="task-00001")
    assert {problem.field for problem in caught.value.problems} == fields
    key = wrong.get("idempotency_key")
    outcome = JobRepository(app.store, id_of_key(key) if key else "task-00001").outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.FAILED
    assert "sesame" not in f"{caught.value}{caught.value.__cause__}{outcome.model_dump_json()}"


def test_a_message_may_say_what_a_client_may(settings: Settings) -> None:
    app = make_app(settings.model_copy(update={"allowed_table_uris": ("s3://tables/",)}))
    said = {"family": "SmolLM2", "ranks": 2, "fsdp": True, "seed": 7, "priority": 3, "tenant": "a"}
    celery_tasks._submit(app, {"table": "s3://tables/t.csv", "config": {}} | said, task_id="task-00002")
    request = JobRepository(app.store, "task-00002").request()
    assert {name: getattr(request, name) for name in said} == said


def test_a_keyword_that_is_no_option_is_refused(settings: Settings) -> None:
    with pytest.raises(TypeError, match="rank"):
        Client(settings).submit(table="t.csv", rank=2)
