"""A sender of messages to the broker cannot run code, end a worker, or touch what is not theirs."""

from __future__ import annotations

import base64
import json
import os
import pickle
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import psutil
import pytest

from nss_train.config import parse_config
from tasks.app import App
from tasks.broker.message_guard import MESSAGE_MAX_BYTES
from tasks.execution.delivery import NEWER_DELAY_S
from tasks.jobs.documents import JobRequest, Table
from tasks.jobs.repository import JobRepository
from tasks.scheduling.reconciliation import reconcile
from tests.security.conftest import Target, own_keys, wait_until
from tests.security.hostile import TYPED_LINES
from tests.security.messages import DEEP, JOB, body, envelope, raw, stage

PREPARE = "nss_train.prepare_data"
ELSEWHERE = {"task": "nss_train.train", "args": [], "kwargs": {}, "options": {"queue": "victim"}}


class Bomb:
    """An object that leaves a mark when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self._mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self._mark),)


MARK = Path("/tmp") / f"nss-train-was-hacked-{os.getpid()}"  # noqa: S108 (never there)
PICKLE = base64.b64encode(pickle.dumps([(), {"message": Bomb(MARK)}, {}])).decode()

REFUSED = {
    "not JSON": b"\x80\x04garbage",
    "not text": bytes(range(128, 256)),
    "nothing": b"",
    "a number": b"7",
    "a number of five thousand digits": b"7" * 5_000,
    "nested too deep": DEEP,
    "an empty object": b"{}",
    "a type of kombu's as a header": raw(
        envelope(PREPARE, stage(), headers__origin=json.loads(TYPED_LINES[0]))
    ),
    "a type of kombu's as a tag": raw(
        envelope(PREPARE, stage(), properties__delivery_tag=json.loads(TYPED_LINES[0]))
    ),
    "a pickle": raw(envelope(PREPARE, {}, body=PICKLE, content_type="application/x-python-serialize")),
    "a pickle that says JSON": raw(envelope(PREPARE, {}, body=PICKLE)),
    "YAML": raw(envelope(PREPARE, {}, content_type="application/x-yaml")),
    "no headers": raw({k: v for k, v in envelope(PREPARE, stage()).items() if k != "headers"}),
    "no id": raw(envelope(PREPARE, stage(), headers={"task": PREPARE})),
    "no delivery tag": raw(envelope(PREPARE, stage(), properties__delivery_tag=None)),
    "a body that is no Base64": raw(envelope(PREPARE, {}, body="!!!")),
    "a body cut short": raw(envelope(PREPARE, {}, body=body(stage())[:40])),
    "a body nested too deep": raw(envelope(PREPARE, {}, body=base64.b64encode(DEEP).decode())),
    "a body of the wrong shape": raw(envelope(PREPARE, {}, body=body([1, 2]))),
    "a huge body": raw(envelope(PREPARE, {"message": {"job_id": "x" * MESSAGE_MAX_BYTES}})),
    "a line of 40 KiB that is no submission": raw(envelope(PREPARE, stage(), headers__stamps=["x" * 40_000])),
    "huge headers": raw(envelope(PREPARE, stage(), headers__stamps=["x" * MESSAGE_MAX_BYTES])),
    "a task of Celery": raw(envelope("celery.map", {"task": "nss_train.reconcile", "it": [1]})),
    "an eta that fills the memory": raw(envelope(PREPARE, stage(), headers__eta="2099-01-01T00:00:00Z")),
    "a reply to another queue": raw(
        envelope(PREPARE, stage(), properties__delivery_info={"exchange": "", "routing_key": "victim"})
    ),
    "a callback": raw(
        envelope(PREPARE, stage(), body=body(stage(), embedded={"callbacks": [{"task": "nss_train.train"}]}))
    ),
    "an address of its own in the body": raw(
        envelope(PREPARE, {}, body=body(stage(), embedded={"delivery_info": {"routing_key": "victim"}}))
    ),
    "a chain to Celery": raw(
        envelope(PREPARE, {}, body=body(stage(), embedded={"chain": [{"task": "celery.backend_cleanup"}]}))
    ),
    "a chain elsewhere": raw(envelope(PREPARE, {}, body=body(stage(), embedded={"chain": [ELSEWHERE]}))),
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_forged_message_is_refused_at_the_door(name: str, target: Target) -> None:
    before = target.stored()
    target.push(REFUSED[name])
    assert target.does_honest_work()
    said = target.said()
    assert "a message was refused" in said
    assert "Traceback" not in said
    assert not MARK.exists()
    assert not target.app.redis.exists("victim")
    assert own_keys(target.stored() - before) == set()
    assert psutil.pid_exists(target.pid)


FAILING = {
    "an unknown task": envelope("nss_train.rm_rf", {}),
    "a task of a module": envelope("os.system", {"command": f"touch {MARK}"}),
    "no keywords": envelope(PREPARE, {}),
    "unknown keywords": envelope(PREPARE, stage() | {"shell": "true"}),
    "an unknown field": envelope(PREPARE, stage(command="true")),
    "an unknown stage": envelope(PREPARE, stage(name="rm_rf")),
    "a job that leaves the store": envelope(PREPARE, stage("../../../etc/passwd")),
    "a job that is no text": envelope(PREPARE, stage({"$ne": None})),
    "a job with a line break": envelope(PREPARE, stage("job-0001\nSET x y")),
    "a message that is a list": envelope(PREPARE, {"message": [1, 2]}),
    "a version that is no number": envelope(PREPARE, stage(version="9")),
    "a version of the future": envelope(PREPARE, stage(version=99)),
    "a version of the future for no id": envelope(PREPARE, {"message": {"version": 99, "job_id": "../x"}}),
    "a version below all": envelope(PREPARE, stage(version=0)),
    "an unknown job": envelope(PREPARE, stage()),
    "an unknown job's last stage": envelope("nss_train.save_model", stage(name="save_model")),
}


@pytest.mark.parametrize("name", FAILING)
def test_a_message_that_asks_for_nonsense_changes_nothing(name: str, target: Target) -> None:
    before = target.stored()
    target.push(raw(FAILING[name]))
    assert target.does_honest_work()
    assert own_keys(target.stored() - before) == set()
    assert not MARK.exists()
    wait_until(lambda: target.app.redis.zcard("unacked_index") == 0)
    assert not target.app.redis.exists("nss-train:lease:" + JOB + ":prepare_data")


def test_a_stage_whose_turn_it_is_not_spends_no_attempt(target: Target) -> None:
    job_id = "20260101-000000-turn0001"
    records = honest_job(target.app, job_id)
    target.push(raw(envelope("nss_train.save_model", stage(job_id, "save_model"))))
    assert target.does_honest_work()
    assert list(target.app.store.children(f"jobs/{job_id}/")) == ["request.json"]
    assert records.outcome() is None


def test_headers_that_celery_would_act_upon_are_not_read(target: Target) -> None:
    job_id = "20260101-000000-expire01"
    records = honest_job(target.app, job_id)
    elsewhere = {"task": "nss_train.train", "args": [], "kwargs": {}, "options": {"queue": "victim"}}
    admit = envelope("nss_train.admit", {"job_id": job_id}, headers__chain=[elsewhere])
    target.push(raw(admit | {"headers": admit["headers"] | {"callbacks": [elsewhere]}}))
    expired = envelope("nss_train.save_model", stage(job_id, "save_model"))
    target.push(raw(expired | {"headers": expired["headers"] | {"expires": "2000-01-01T00:00:00Z"}}))
    target.push(raw(envelope(PREPARE, stage("key-" + "0" * 32), headers__expires="2000-01-01T00:00:00Z")))
    assert target.does_honest_work()
    assert records.cancellation() is None
    assert not target.app.store.exists(f"jobs/key-{'0' * 32}/cancel.json")
    assert not target.app.redis.exists("victim")


def honest_job(app: App, job_id: str) -> JobRepository:
    records = JobRepository(app.store, job_id)
    records.submitted(
        JobRequest(
            job_id=job_id,
            table=Table(name="t.csv", sha256="0" * 64),
            config=parse_config({}),
            seed=1,
            submitted_at=datetime.now(UTC),
        )
    )
    return records


@pytest.mark.parametrize(
    "change",
    [
        {"table": {"path": "/etc/passwd"}},
        {"table": "/etc/passwd"},
        {"version": 99},
        {"table": "file:///etc/passwd"},
        {"table": "s3://elsewhere/x.csv"},
        {"table": "http://169.254.169.254/latest/meta-data/iam.csv"},
        {"table": "https://127.0.0.1:6379/x.csv"},
        {"config": [1, 2]},
        {"config": {"training": {"pretrained_model": 7, "bogus": "x"}}},
        {"config": {"training": "x"}},
        {"seed": "1; DROP"},
        {"seed": -1},
        {"idempotency_key": ""},
        {"job_id": "20260101-000000-turn0001"},
        {"webhook": "http://169.254.169.254/latest/meta-data"},
    ],
    ids=str,
)
def test_a_bad_submission_is_an_outcome_that_its_sender_finds(change: dict[str, Any], target: Target) -> None:
    task_id = f"task-{os.urandom(8).hex()}"
    given = {"table": "s3://elsewhere/x.csv", "config": {}} | change
    target.push(raw(envelope("nss_train.submit", given, headers__id=task_id)))
    assert target.does_honest_work()
    outcome = JobRepository(target.app.store, task_id).outcome()
    assert outcome is not None
    assert outcome.error is not None
    assert outcome.error["type"] == "ParameterError"


def test_a_submission_under_the_id_of_another_job_changes_nothing(target: Target) -> None:
    job_id = "20260101-000000-other001"
    records = honest_job(target.app, job_id)
    given = {"table": "s3://elsewhere/x.csv", "config": {}}
    target.push(raw(envelope("nss_train.submit", given, headers__id=job_id)))
    assert target.does_honest_work()
    assert records.request().table.name == "t.csv"
    assert records.outcome() is None


@pytest.mark.parametrize("task_id", ["../../outside", "a/b", "", "x" * 5000])
def test_a_submission_whose_id_leaves_the_store_is_lost(task_id: str, target: Target) -> None:
    before = target.stored()
    given = {"table": "s3://elsewhere/x.csv", "config": {}}
    target.push(raw(envelope("nss_train.submit", given, headers__id=task_id)))
    assert target.does_honest_work()
    assert own_keys(target.stored() - before) == set()


def test_forged_messages_that_wait_do_not_keep_reconcile_from_its_work(target: Target) -> None:
    queue = target.settings.queue_cuda  # which has no worker here
    for line in REFUSED.values():
        target.app.redis.lpush(queue, line)
    job_id = "20260101-000000-strand01"
    honest_job(target.app, job_id)
    assert job_id in reconcile(target.app, after_s=0)
    target.app.redis.delete(queue)


@pytest.mark.parametrize("limit", [[0.000001, 0.000001], "soon", 7, [None], [{}, []]])
def test_a_message_cannot_limit_the_time_of_its_task(limit: Any, target: Target) -> None:
    task_id = f"task-{os.urandom(8).hex()}"
    given = {"table": "s3://elsewhere/x.csv", "config": {}}
    target.push(raw(envelope("nss_train.submit", given, headers__id=task_id, headers__timelimit=limit)))
    assert target.does_honest_work()
    assert JobRepository(target.app.store, task_id).outcome() is not None


def test_no_type_of_kombu_s_is_made_of_what_a_line_says(target: Target) -> None:
    for line in TYPED_LINES:
        target.push(line)
    assert target.does_honest_work()
    assert target.log.count("a message was refused") >= len(TYPED_LINES)
    assert "Unrecoverable" not in target.log


def test_a_typed_argument_is_answered_as_what_it_is(target: Target) -> None:
    task_id = f"task-{os.urandom(8).hex()}"
    asked = '[[],{"table":"s3://elsewhere/x.csv","config":{"data":' + TYPED_LINES[1].decode() + "}},{}]"
    encoded = base64.b64encode(asked.encode()).decode()
    target.push(raw(envelope("nss_train.submit", {}, body=encoded, headers__id=task_id)))
    assert target.does_honest_work()
    assert (outcome := JobRepository(target.app.store, task_id).outcome()) is not None
    assert "__type__" in str(outcome.error)


@pytest.mark.parametrize("event", [*TYPED_LINES[:2], b"7", b"[]", b"{}", b'{"body":7}', b"\x80"])
def test_no_event_ends_its_receiver(event: bytes, target: Target) -> None:
    seen: list[dict[str, Any]] = []
    with target.app.connection_for_read() as connection:
        receiver = target.app.events.Receiver(connection, handlers={"*": seen.append})
        capture = receiver.itercapture(limit=None, timeout=30, wakeup=False)
        next(capture)  # it listens now
        assert target.app.redis.publish("/0.celeryev/task.sent", event)
        target.push(raw(envelope(PREPARE, stage())))
        for _ in capture:
            if any(event["type"] == "task-received" for event in seen):
                break
    assert any(event["type"] == "task-received" for event in seen)


def test_a_submission_shows_in_events_without_its_arguments(target: Target) -> None:
    seen: list[dict[str, Any]] = []
    message = {"table": "s3://elsewhere/x.csv", "config": {}, "webhook": "https://x.example/?token=sesame"}
    with target.app.connection_for_read() as connection:
        receiver = target.app.events.Receiver(connection, handlers={"*": seen.append})
        capture = receiver.itercapture(limit=None, timeout=30, wakeup=False)
        next(capture)  # it listens now
        sent = envelope("nss_train.submit", message, headers__kwargsrepr=str(message))
        target.push(raw(sent))
        for _ in capture:  # events of the honest submission before may still arrive
            own = [event["type"] for event in seen if event.get("uuid") == sent["headers"]["id"]]
            if "task-failed" in own:
                break
    assert "task-received" in own
    assert "sesame" not in str([event.get("kwargs") for event in seen])
    assert "sesame" not in target.log


def test_a_version_of_the_future_does_not_make_a_worker_wait(target: Target) -> None:
    job_id = "20260101-000000-future01"
    honest_job(target.app, job_id)
    started = time.monotonic()
    for number in range(20):
        target.push(raw(envelope(PREPARE, stage(job_id, version=99 + number))))
    assert target.does_honest_work()
    assert time.monotonic() - started < NEWER_DELAY_S / 2
    assert list(target.app.store.children(f"jobs/{job_id}/")) == ["request.json"]
