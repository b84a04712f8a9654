"""The order of admission, on a real broker and store. A test plays the workers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import ParameterError
from tasks.app import App, make_app
from tasks.broker import queues
from tasks.client import Client
from tasks.jobs.documents import JobRequest, JobState, Outcome, Table
from tasks.jobs.repository import JobRepository
from tasks.local.valkey import Valkey
from tasks.scheduling import admission, chain
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings

WINDOW = 2


@pytest.fixture
def broker(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as server:
        yield server


@pytest.fixture
def given(broker: Valkey, tmp_path: Path) -> dict[str, Any]:
    return {"home": tmp_path / "home", "broker_url": broker.url, "admission_window": WINDOW}


@pytest.fixture
def app(given: dict[str, Any]) -> App:
    return make_app(Settings.model_validate(given))


def submit(app: App, name: str, *, tenant: str = "default", priority: int = 5) -> str:
    """Submit a job as `submit` leaves it in the store, without its table."""
    job_id = f"job-{name}"
    request = JobRequest(
        job_id=job_id,
        table=Table(name="birds.csv"),
        config=parse_config({}),
        seed=1,
        submitted_at=datetime.now(UTC),
        tenant=tenant,
        priority=priority,
    )
    JobRepository(app.store, job_id).submitted(request)
    admission.apply(app, job_id)
    return job_id


def sent(app: App) -> list[str]:
    """Return the jobs of the stages that wait, the next one first."""
    texts = [text for key in queues.lists("cpu") for text in reversed(app.redis.lrange(key, 0, -1))]
    return [json.loads(text)["headers"]["stamps"]["job_id"] for text in texts]


def take(app: App) -> str:
    """Take a message as a worker does, and return its job."""
    job_id = sent(app)[0]
    key = next(key for key in queues.lists("cpu") if app.redis.llen(key))
    app.redis.rpop(key)
    admission.admit(app)
    return job_id


def end(app: App, job_id: str, outcome: Outcome = Outcome.SUCCEEDED) -> None:
    """End a job as a worker does."""
    records = JobRepository(app.store, job_id)
    records.finish(outcome)
    records.tidy()
    admission.release(app.redis, job_id)
    admission.admit(app)


def test_a_job_begins_at_once_while_there_is_room(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(3)]
    assert sent(app) == jobs[:WINDOW]
    assert admission.held(app.redis) == {jobs[2]}
    assert set(admission.in_flight(app.redis)) == set(jobs[:WINDOW])


def test_a_taken_message_makes_room_for_the_next_job(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(4)]
    assert take(app) == jobs[0]
    assert sent(app) == jobs[1:3]


def test_a_newcomer_does_not_wait_for_the_jobs_of_another_tenant(app: App) -> None:
    for n in range(50):
        submit(app, f"a{n:03}", tenant="a")
    for n in range(3):
        submit(app, f"b{n:03}", tenant="b")
    order = []
    for _ in range(12):
        order.append(take(app))
        end(app, order[-1])
    # What was in the queue when b came, and then one each.
    assert [job[4] for job in order[:8]] == ["a", "a", "b", "a", "b", "a", "b", "a"]


def test_what_is_begun_is_ended_before_something_new_begins(app: App) -> None:
    new = submit(app, "0001")
    chain.send(app, "job-load", start=Stage.LOAD_MODEL)
    chain.send(app, "job-save", start=Stage.SAVE_MODEL)
    assert sent(app) == ["job-save", "job-load", new]


def test_the_tenant_with_fewer_jobs_at_work_goes_first(app: App) -> None:
    for n in range(2):
        submit(app, f"a00{n}", tenant="a")
        take(app)
    for n in range(WINDOW):
        submit(app, f"c00{n}", tenant="c")
    submit(app, "a002", tenant="a")
    submit(app, "b000", tenant="b")
    take(app)
    # a waited longer, but has two at work, and b none.
    assert sent(app) == ["job-c001", "job-b000"]


def test_within_a_tenant_the_smaller_number_goes_first_and_then_who_came_first(app: App) -> None:
    for n in range(WINDOW):
        submit(app, f"000{n}")
    for name, priority in (("late", 9), ("usual", 5), ("urgent", 0), ("usual-two", 5)):
        submit(app, name, priority=priority)
    order = []
    for _ in range(6):
        order.append(take(app))
        end(app, order[-1])
    assert order[2:] == ["job-urgent", "job-usual", "job-usual-two", "job-late"]


def test_a_tenant_has_no_more_jobs_at_work_than_its_quota(given: dict[str, Any]) -> None:
    app = make_app(Settings.model_validate(given | {"tenant_quota": 1, "admission_window": 9}))
    first, second = submit(app, "a001", tenant="a"), submit(app, "a002", tenant="a")
    other = submit(app, "b001", tenant="b")
    assert sent(app) == [first, other]
    take(app)
    assert sent(app) == [other]
    end(app, first)
    assert sent(app) == [other, second]


def test_stages_that_wait_for_a_gpu_hold_jobs_back_too(app: App) -> None:
    for n in range(WINDOW):
        chain.send(app, f"job-99{n}", start=Stage.TRAIN)
    assert queues.stages_waiting(app.redis, app.settings) == {"cpu": 0, "cuda": WINDOW}
    submit(app, "0001")
    assert sent(app) == []


def test_an_emptied_broker_loses_no_job_and_the_window_holds(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(5)]
    app.redis.flushall()
    assert reconcile(app, after_s=0) == jobs
    assert sent(app) == jobs[:WINDOW]
    assert admission.held(app.redis) == set(jobs[WINDOW:])
    assert reconcile(app, after_s=0) == []
    for job in jobs:
        assert take(app) == job
        end(app, job)
    assert admission.in_flight(app.redis) == {}


def test_a_job_that_waits_for_its_turn_is_not_stranded(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(4)]
    assert reconcile(app, after_s=0) == []
    assert sent(app) == jobs[:WINDOW]


def test_a_job_that_has_begun_is_sent_again_at_once_and_counts_as_at_work(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(4)]
    begun = JobRepository(app.store, jobs[3])
    begun.claim(Stage.PREPARE_DATA, worker="w", max_attempts=3)
    app.redis.flushall()
    assert reconcile(app, after_s=0) == jobs
    assert jobs[3] in sent(app)
    assert set(admission.in_flight(app.redis)) == {jobs[3], jobs[0]}


def test_a_job_cancelled_while_it_waited_takes_nobodys_turn(app: App) -> None:
    jobs = [submit(app, f"000{n}") for n in range(4)]
    Client(app.settings).cancel(jobs[2], reason="no more", requested_by="test")
    take(app)
    assert sent(app) == [jobs[1], jobs[3]]
    assert admission.held(app.redis) == set()


def test_a_job_that_asks_twice_begins_once(app: App) -> None:
    job = submit(app, "0001")
    admission.apply(app, job)
    assert sent(app) == [job]


def test_a_waiting_job_knows_its_place_and_when_it_may_begin(app: App) -> None:
    for n in range(4):
        submit(app, f"a00{n}", tenant="a")
    mine = submit(app, "b001", tenant="b")
    last = submit(app, "a009", tenant="a")
    client = Client(app.settings)
    assert client.status("job-a000").place is None
    found = client.status(mine).place
    assert found is not None
    assert (found.ahead, found.starts_in_s) == (1, None)
    found = client.status(last).place
    assert found is not None
    assert found.ahead == 3
    app.redis.hset(admission.FIGURES, "mean_job_s", "60")
    found = client.status(last).place
    assert found is not None
    assert found.starts_in_s == pytest.approx(4 * 60 / 2)


def test_an_ended_job_has_no_place(app: App) -> None:
    job = submit(app, "0001")
    end(app, job)
    assert Client(app.settings).status(job).place is None
    assert Client(app.settings).status(job).state is JobState.SUCCEEDED


@pytest.mark.parametrize(
    ("given_line", "fields"),
    [
        ({"priority": 10}, {"priority"}),
        ({"tenant": "A b"}, {"tenant"}),
        ({"priority": -1, "tenant": ""}, {"priority", "tenant"}),
    ],
)
def test_a_bad_place_in_line_is_refused_together_with_the_rest(
    app: App, given_line: dict[str, Any], fields: set[str]
) -> None:
    with pytest.raises(ParameterError) as caught:
        Client(app.settings).submit(table=Path("/no/such/table.csv"), config={}, **given_line)
    assert {problem.field for problem in caught.value.problems} >= {*fields, "table"}


def test_tenant_and_priority_are_kept_with_the_job(app: App, table: Path) -> None:
    client = Client(app.settings)
    job = client.submit(table=table, config={}, priority=2, tenant="team-a")
    request = JobRepository(app.store, job).request()
    assert (request.priority, request.tenant) == (2, "team-a")
    (message,) = queues.messages(app.redis, app.settings)
    assert message["headers"]["task"] == admission.ADMIT


def test_who_lost_the_lock_meanwhile_admits_no_further_job(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    jobs = [submit(app, f"000{n}") for n in range(WINDOW + 2)]
    app.redis.delete(*queues.lists("cpu"))
    send = chain.send

    def slowly(app: App, job_id: str) -> None:
        send(app, job_id)
        app.redis.set(admission.LOCK, "another worker's")

    monkeypatch.setattr(chain, "send", slowly)
    assert admission.admit(app) == [jobs[WINDOW]]
    assert app.redis.get(admission.LOCK) == b"another worker's"
    assert admission.held(app.redis) == {jobs[WINDOW + 1]}
