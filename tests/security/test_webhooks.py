"""Webhooks: signed, at least once, on the record; never to the operator's own machines."""

from __future__ import annotations

import json
import socket
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from standardwebhooks import Webhook as Signer
from standardwebhooks import WebhookVerificationError

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import ParameterError
from tasks.app import App, make_app
from tasks.client import Client
from tasks.jobs.documents import JobRequest, Outcome, StageCommit, Table
from tasks.jobs.keys import Keys
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import Webhook
from tasks.settings import Settings
from tasks.telemetry import counters
from tasks.telemetry.counters import Action
from tasks.webhooks import delivery
from tests.security.conftest import Target, wait_until
from tests.security.receiver import SECRET, Receiver, receiver, webhook_settings

JOB = "20260101-000000-abcdef01"


@pytest.fixture
def app(allowing: Settings) -> App:
    return make_app(allowing)


def job(app: App, url: str, *, progress: bool = False, job_id: str = JOB) -> JobRepository:
    records = JobRepository(app.store, job_id)
    request = JobRequest(
        job_id=job_id,
        table=Table(name="t.csv", sha256="0" * 64),
        config=parse_config({}),
        seed=1,
        submitted_at=datetime.now(UTC),
        webhook=Webhook(url=url, progress=progress),
    )
    records.submitted(request)
    return records


def commit(records: JobRepository, stage: Stage) -> None:
    now = datetime.now(UTC)
    records.commit(StageCommit(stage=stage, attempt=1, started_at=now, finished_at=now, files=()))


def tries(records: JobRepository, name: str = "outcome") -> list[delivery.Attempt]:
    return delivery.attempts(records, next(n for n in delivery.notices(records) if n.name == name))


def test_the_end_of_a_job_is_told_with_a_signature_that_holds(app: App, listening: Receiver) -> None:
    records = job(app, listening.url())
    delivery.deliver(app, JOB)
    assert listening.bodies == []
    records.finish(Outcome.CANCELLED, reason="secret reason")
    delivery.deliver(app, JOB)
    (body,), (headers,) = listening.bodies, listening.headers
    told = Signer(SECRET).verify(body, headers)
    assert (told["type"], told["data"]["job_id"]) == ("job.cancelled", JOB)
    assert b"secret reason" not in body
    assert [one.status for one in tries(records)] == [204]
    assert list(app.store.children(delivery.PENDING)) == []


def test_a_forged_or_replayed_delivery_is_told_apart(app: App, listening: Receiver) -> None:
    job(app, listening.url()).finish(Outcome.SUCCEEDED)
    delivery.deliver(app, JOB)
    (body,), (headers,) = listening.bodies, listening.headers
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Signer(SECRET).verify(body.replace(b"succeeded", b"cancelled"), headers)
    with pytest.raises(WebhookVerificationError, match="No matching"):
        Signer(SECRET).verify(body, headers | {"webhook-id": "another"})
    late = datetime.now(UTC) - timedelta(minutes=6)
    signed = Signer(SECRET).sign(headers["webhook-id"], late, body.decode())
    replayed = {"webhook-timestamp": str(int(late.timestamp())), "webhook-signature": signed}
    with pytest.raises(WebhookVerificationError, match="too old"):
        Signer(SECRET).verify(body, headers | replayed)


def test_while_a_secret_is_replaced_both_hold(settings: Settings, listening: Receiver) -> None:
    new = "whsec_bmV3IHNlY3JldCBvZiB0aGUgb3BlcmF0b3I="
    app = make_app(settings.model_copy(update=webhook_settings(settings, webhook_secret=f"{SECRET} {new}")))
    job(app, listening.url()).finish(Outcome.SUCCEEDED)
    delivery.deliver(app, JOB)
    for secret in (SECRET, new):
        Signer(secret).verify(listening.bodies[0], listening.headers[0])


def test_a_delivery_that_never_succeeds_is_counted_given_up_and_forgotten(
    app: App, listening: Receiver
) -> None:
    app.redis.flushall()
    listening.statuses = [500] * 9
    records = job(app, listening.url())
    records.finish(Outcome.FAILED)
    for _ in range(5):
        delivery.deliver(app, JOB)
        time.sleep(0.3)
    assert [one.status for one in tries(records)] == [500] * 3
    assert counters.read(app.redis)[Action.WEBHOOKS_FAILED] == 3
    assert list(app.store.children(delivery.PENDING)) == []


def test_a_failed_delivery_is_tried_again_later_under_the_same_id(app: App, listening: Receiver) -> None:
    listening.statuses = [500]
    records = job(app, listening.url())
    records.finish(Outcome.FAILED)
    delivery.deliver(app, JOB)
    delivery.deliver(app, JOB)  # too early
    assert [one.status for one in tries(records)] == [500]
    assert delivery.announce_due(app) == []
    time.sleep(0.06)
    assert delivery.announce_due(app) == [JOB]
    assert delivery.announce_due(app) == []
    delivery.deliver(app, JOB)
    assert [one.status for one in tries(records)] == [500, 204]
    assert len({headers["webhook-id"] for headers in listening.headers}) == 1


def test_a_receiver_that_never_answers_is_given_up(app: App, listening: Receiver) -> None:
    listening.statuses = [503] * 9
    records = job(app, listening.url())
    records.finish(Outcome.FAILED)
    deadline = time.monotonic() + 30
    while list(app.store.children(delivery.PENDING)):
        delivery.deliver(app, JOB)
        assert time.monotonic() < deadline
    assert [one.status for one in tries(records)] == [503] * 3


def test_a_receiver_that_is_gone_is_not_asked_again(app: App, listening: Receiver) -> None:
    listening.statuses = [410]
    job(app, listening.url()).finish(Outcome.FAILED)
    delivery.deliver(app, JOB)
    assert list(app.store.children(delivery.PENDING)) == []


def test_after_a_crash_it_is_sent_again(app: App, listening: Receiver, monkeypatch: Any) -> None:
    records = job(app, listening.url())
    records.finish(Outcome.SUCCEEDED)
    with monkeypatch.context() as patch:
        patch.setattr(delivery, "post", crash)
        with pytest.raises(KeyboardInterrupt):
            delivery.deliver(app, JOB)
    time.sleep(0.06)
    delivery.deliver(app, JOB)
    assert [one.status for one in tries(records)] == [None, 204]
    assert len(listening.bodies) == 1


def crash(*_: object, **__: object) -> int:
    raise KeyboardInterrupt


def test_progress_is_told_when_it_is_asked_for(app: App, listening: Receiver) -> None:
    records = job(app, listening.url(), progress=True)
    commit(records, Stage.PREPARE_DATA)
    delivery.deliver(app, JOB)
    commit(records, Stage.LOAD_MODEL)
    records.finish(Outcome.CANCELLED, reason="x")
    delivery.deliver(app, JOB)
    told = [json.loads(body) for body in listening.bodies]
    assert [one["type"] for one in told] == ["stage.committed", "stage.committed", "job.cancelled"]
    assert [one["data"].get("stage") for one in told] == ["prepare_data", "load_model", None]


def test_a_receiver_that_is_silent_costs_no_more_than_its_time(app: App) -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://127.0.0.1:{deaf.getsockname()[1]}/"
        records = job(app, url)
        records.finish(Outcome.SUCCEEDED)
        started = time.monotonic()
        delivery.deliver(app, JOB)
        assert time.monotonic() - started < 3
    (one,) = tries(records)
    assert one.error == "The receiver does not answer: ReadTimeoutError."


def test_a_redirection_is_not_followed(app: App, listening: Receiver) -> None:
    with receiver() as trap:
        listening.statuses, listening.location = [302], trap.url()
        records = job(app, listening.url())
        records.finish(Outcome.SUCCEEDED)
        delivery.deliver(app, JOB)
        assert trap.bodies == []
    assert [one.status for one in tries(records)] == [302]


def test_a_job_that_fails_on_a_worker_tells_its_webhook(
    target: Target, listening: Receiver, table: Path
) -> None:
    url = listening.url()
    config = {"training": {"pretrained_model": "no-such-model"}}
    job_id = Client(target.settings).submit(table=table, config=config, webhook=url)
    wait_until(lambda: bool(listening.bodies))
    told = Signer(SECRET).verify(listening.bodies[0], listening.headers[0])
    assert told["type"] == "job.failed"
    assert told["data"] == {
        "job_id": job_id,
        "outcome": "failed",
        "stage": "prepare_data",
        "error": "ParameterError",
        "warnings": [],
    }
    wait_until(lambda: not target.app.store.exists(Keys(job_id).webhook_pending))
    assert "sesame" not in target.said()


def test_a_webhook_that_the_operator_does_not_allow_is_refused_at_once(target: Target, table: Path) -> None:
    before = target.stored()
    with pytest.raises(ParameterError, match="not an allowed host"):
        Client(target.settings).submit(table=table, webhook="https://169.254.169.254/latest")
    assert target.stored() == before
