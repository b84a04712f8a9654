"""A submission that is refused at the door leaves a trace for its sender, and burdens no one else."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from celery import Celery, chain

from nss_train.config import parse_config
from nss_train.errors import from_json
from tasks.client import Client
from tasks.jobs.documents import JobRequest, Table
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings
from tasks.submission.answers import MOST_WAITING, Answers, submission_id
from tests.security.conftest import Target, wait_until
from tests.security.messages import body, envelope, raw

SUBMIT = "nss_train.submit"
KWARGS = {"table": "s3://tables/p.csv", "config": {}}


def other_client(target: Target, **conf: Any) -> Celery:
    """Return a foreign Celery application, which knows nothing of this project."""
    app = Celery("other", broker=target.settings.broker_url.get_secret_value())
    app.conf.update(task_serializer="json", **conf)
    return app


def plain(app: Celery, **options: Any) -> str:
    return str(app.send_task(SUBMIT, queue="cpu", **{"kwargs": KWARGS, **options}).id)


def chained(app: Celery) -> str:
    sent = chain(
        app.signature(SUBMIT, kwargs=KWARGS, queue="cpu"), app.signature("my.after", queue="mine")
    ).apply_async()
    while sent.parent is not None:
        sent = sent.parent
    return str(sent.id)


SENDERS: dict[str, tuple[Callable[[Celery], str], str, dict[str, Any]]] = {
    "a countdown": (lambda app: plain(app, countdown=20), "an eta (countdown)", {}),
    "a link": (lambda app: plain(app, link=app.signature("my.after", queue="mine")), "callbacks", {}),
    "a chain": (chained, "a chain behind what is no stage", {}),
    "positional arguments": (
        lambda app: plain(app, kwargs={}, args=["s3://tables/p.csv", {}]),
        "positional arguments",
        {},
    ),
    "protocol 1": (plain, "protocol 1", {"task_protocol": 1}),
}


@pytest.mark.parametrize("name", SENDERS)
def test_a_submission_refused_at_the_door_has_an_outcome_that_says_why(name: str, target: Target) -> None:
    send, why, conf = SENDERS[name]
    with other_client(target, **conf) as app:
        job_id = send(app)
    records = JobRepository(target.app.store, job_id)
    wait_until(lambda: records.outcome() is not None)
    status = Client(target.settings).status(job_id)
    assert status.error is not None
    assert why in str(from_json(status.error))
    said = next(line for line in target.said().splitlines() if "a message was refused" in line)
    assert job_id in said


def test_a_job_that_is_there_is_not_touched_by_a_message_with_its_id(target: Target) -> None:
    job_id = f"20260101-000000-{uuid.uuid4().hex[:8]}"
    records = JobRepository(target.app.store, job_id)
    request = JobRequest(
        job_id=job_id,
        table=Table(name="t.csv", uri="s3://shared/t.csv"),
        config=parse_config({}),
        seed=1,
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
    )
    assert records.submitted(request)
    folder = Path(target.settings.home) / "store"
    before = {p: p.read_bytes() for p in folder.rglob(f"*{job_id}*/**/*") if p.is_file()}
    later = str(uuid.uuid4())
    for one in (job_id, later):
        target.push(raw(envelope(SUBMIT, KWARGS, headers__id=one, headers__eta="2099-01-01T00:00:00Z")))
    wait_until(lambda: JobRepository(target.app.store, later).outcome() is not None)
    assert {p: p.read_bytes() for p in folder.rglob(f"*{job_id}*/**/*") if p.is_file()} == before
    assert records.outcome() is None
    assert records.opened_at() == request.submitted_at


ETA = {"headers__eta": "2099-01-01T00:00:00Z"}
NO_ANSWER = {
    "another task": envelope("nss_train.train", {}, **ETA),
    "an id that leaves the store": envelope(SUBMIT, KWARGS, headers__id="../../etc/x", **ETA),
    "an id that is no text": envelope(SUBMIT, KWARGS, headers__id={"a": 1}, **ETA),
    "a long id": envelope(SUBMIT, KWARGS, headers__id="x" * 65, **ETA),
    "a line break": envelope(SUBMIT, KWARGS, headers__id="job-0001\nSET", **ETA),
    "somebody's key": envelope(SUBMIT, KWARGS, headers__id=f"key-{'0' * 32}", **ETA),
    "headers that are a list": envelope(SUBMIT, KWARGS) | {"headers": [1]},
    "a body that is no Base64": envelope(SUBMIT, KWARGS, body="!") | {"headers": {}},
    "an old body that is a list": envelope(SUBMIT, {}, body=body({})) | {"headers": {}},
    "no object": [1, 2],
}


@pytest.mark.parametrize("name", NO_ANSWER)
def test_what_is_no_submission_with_an_id_of_its_own_gets_no_answer(name: str) -> None:
    assert submission_id(NO_ANSWER[name]) is None


def test_the_consumer_never_waits_for_a_store_that_is_away(tmp_path: Path) -> None:
    given = {"store_url": "s3://none", "s3_endpoint": "127.0.0.1:9", "s3_secure": False, "home": tmp_path}
    answers = Answers(Settings.model_validate(given))
    message = envelope(SUBMIT, KWARGS)
    began = time.monotonic()
    for _ in range(20 * MOST_WAITING):
        answers.refused(message, "an eta")
    waited_s = time.monotonic() - began
    answers.close()
    assert waited_s < 1


def test_a_flood_of_refused_submissions_keeps_nobody_waiting_and_fills_no_store(target: Target) -> None:
    count = 1_000
    before = target.stored()
    lines = [raw(envelope(SUBMIT, KWARGS, headers__eta="2099-01-01T00:00:00Z")) for _ in range(count)]
    target.app.redis.lpush(target.settings.queue_cpu, *lines)
    began = time.monotonic()
    assert target.does_honest_work()
    assert time.monotonic() - began < 30
    outcomes = [key for key in target.stored() - before if key.endswith("outcome.json")]
    assert 0 < len(outcomes) < count // 2
    assert target.said().count("a message was refused") == count
