"""Each role of deploy/users.acl can do its work, and nothing else, on a real Valkey behind TLS."""

from __future__ import annotations

import base64
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from kombu import Queue
from redis import Redis
from redis.exceptions import AuthenticationError, NoPermissionError, RedisError

from nss_train.contract import Stage
from nss_train.errors import BrokerUnavailable
from tasks.app import make_app
from tasks.broker.lease import Lease, Renewal, lease_key
from tasks.client import Client
from tasks.execution.progress import stream_key
from tasks.jobs.documents import JobState
from tasks.local.server import free_ports
from tasks.monitoring.snapshot import read_broker
from tasks.scheduling import admission
from tasks.settings import worker_environment
from tasks.telemetry import counters
from tests.deploy.conftest import GuardedValkey, Role, wait_for_port

Connect = Callable[[str], Redis]

FLOWER_READY_S = 60.0
PROGRESS, LEASE = stream_key("job-0000"), lease_key("job-0000", Stage.TRAIN)


def test_a_job_is_done_by_client_and_worker_with_their_own_users(ended_job: Any, workers: Path) -> None:
    assert ended_job.state is JobState.SUCCEEDED
    assert not refusals(workers)


def refusals(logs: Path) -> list[str]:
    """Return the log lines in which a worker was refused."""
    text = "".join(log.read_text() for log in logs.iterdir())
    return re.findall(r".*(?:no permissions|No permissions|NOPERM).*", text)


def test_a_client_reads_the_progress_of_a_job(ended_job: Any, connect: Connect) -> None:
    events = connect("client").xrange(stream_key(ended_job.job_id))
    assert {json.loads(fields["event"])["stage"] for _, fields in events} >= {"train"}


def test_a_client_cancels_a_job_that_nobody_works_on(as_role: Role, table: Path, config: Any) -> None:
    client = Client(as_role("client"))
    job_id = client.submit(table=table, config=config)
    client.cancel(job_id, reason="no more", requested_by="test")
    *_, last = client.watch(job_id, timeout_s=60)
    assert last.state is JobState.CANCELLED


def test_a_worker_takes_renews_and_gives_back_a_lease(as_role: Role) -> None:
    redis = make_app(as_role("worker")).redis
    lease = Lease.acquire(redis, "job-1111", Stage.TRAIN, ttl_s=30)
    assert lease is not None
    assert lease.renew() is Renewal.HELD
    redis.delete(lease_key("job-1111", Stage.TRAIN))
    assert lease.renew() is Renewal.REGAINED
    lease.release()
    assert not redis.exists(lease_key("job-1111", Stage.TRAIN))


def test_a_worker_delivers_the_message_of_a_dead_one_again(as_role: Role) -> None:
    app = make_app(as_role("worker"))
    with app.connection_for_read() as connection, connection.channel() as channel:
        queue = Queue("cuda-test")(channel)
        queue.declare()
        app.send_task("test.nothing", queue="cuda-test")
        taken = queue.get(no_ack=False)
        assert taken is not None
        assert queue.get() is None
        app.redis.zadd("unacked_index", {taken.delivery_tag: 1.0}, xx=True)
        channel.qos.restore_visible()
        again = queue.get(no_ack=True)
    assert again is not None
    assert again.delivery_info["redelivered"] or again.headers["id"] == taken.headers["id"]


def test_the_counters_are_read_by_the_role_metrics(ended_job: Any, as_role: Role, connect: Connect) -> None:
    counters.count(make_app(as_role("worker")).redis, "test")
    assert counters.read(make_app(as_role("metrics")).redis)["test"] == 1
    assert connect("metrics").llen("cpu") >= 0


def test_the_exporter_reads_all_it_tells_with_its_own_user(ended_job: Any, as_role: Role) -> None:
    settings = as_role("metrics")
    broker = read_broker(make_app(settings).redis, settings)
    assert broker.totals["jobs|succeeded"] >= 1
    assert broker.totals["steps"] > 0
    assert broker.workers == {"cpu@test": True, "cuda@test": True}
    assert {series.labels for series in broker.histograms["queue_wait_seconds"]} == {("cpu",), ("cuda",)}
    stages = {(stage.value, "succeeded") for stage in Stage}
    assert {series.labels for series in broker.histograms["stage_seconds"]} >= stages


def test_a_client_learns_the_place_of_its_job(as_role: Role) -> None:
    app = make_app(as_role("worker"))
    app.redis.zadd(admission.held_key("team-a"), {"job-0000": 1.0})
    app.redis.hset(admission.FIGURES, "held", "1")
    found = admission.place(make_app(as_role("client")).redis, "job-0000", "team-a")
    app.redis.delete(admission.held_key("team-a"))
    assert found is not None
    assert found.ahead == 0


def test_flower_shows_workers_and_queues_with_its_own_user(
    as_role: Role, workers: Path, secrets: Path, tmp_path: Path
) -> None:
    with flower(as_role, secrets, tmp_path / "flower.log") as get:
        wait_until(lambda: set(get("/api/workers?refresh=1")) == {"cpu@test", "cuda@test"})
        # A worker that did not answer within Flower's second is asked again.
        wait_until(
            lambda: (
                bool(get("/api/workers?refresh=1")) and queues(get("/api/queues/length")) == {"cpu", "cuda"}
            )
        )
    assert not re.search(r"(?i)no permissions|NOPERM", (tmp_path / "flower.log").read_text())


@contextmanager
def flower(as_role: Role, secrets: Path, log: Path) -> Iterator[Callable[[str], Any]]:
    """Run Flower as compose.yaml starts it, and yield a function that queries it."""
    (port,) = free_ports(1)
    login = (secrets / "flower-basic-auth").read_text()
    # Flower's own connection takes the authority from here: it does not read the URL's options.
    environment = {"FLOWER_BASIC_AUTH": login, "SSL_CERT_FILE": str(secrets / "ca.crt")}
    command = [sys.executable, "-m", "tasks.flower", "--address=127.0.0.1", f"--port={port}"]
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=worker_environment(as_role("flower")) | environment, stdout=output, stderr=output
        ) as process,
    ):
        try:
            wait_for_port(port)
            yield lambda path: ask(f"http://127.0.0.1:{port}{path}", login)
        finally:
            process.terminate()


def wait_until(true: Callable[[], bool]) -> None:
    deadline = time.monotonic() + FLOWER_READY_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.2)


def queues(answer: Any) -> set[str]:
    return {queue["name"] for queue in answer["active_queues"]}


def ask(url: str, login: str) -> Any:
    token = base64.b64encode(login.encode()).decode()
    request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.load(answer)


FORBIDDEN = {
    "client": [
        ("LRANGE", "cpu", 0, -1),
        ("RPOP", "cpu"),
        ("DEL", "cpu"),
        ("LPUSH", "cuda", "x"),
        ("LRANGE", "cuda", 0, -1),
        ("HGETALL", "unacked"),
        ("GET", LEASE),
        ("SET", LEASE, "x"),
        ("DEL", LEASE),
        ("XADD", PROGRESS, "*", "event", "x"),
        ("HGETALL", counters.KEY),
        ("ZRANGE", admission.held_key("default"), 0, -1),
        ("HGETALL", admission.IN_FLIGHT),
        ("SADD", "_kombu.binding.cuda", "x"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("PUBLISH", "/0.celeryev/worker.offline", "x"),
        ("PSUBSCRIBE", "/0.celeryev/*"),
    ],
    "worker": [("GET", "somebody-elses"), ("LPUSH", "somebody-elses", "x"), ("SUBSCRIBE", "news")],
    "flower": [
        ("LRANGE", "cpu", 0, -1),
        ("BRPOP", "cuda", 1),
        ("LPUSH", "cpu", "x"),
        ("HGETALL", "unacked"),
        ("ZRANGE", "unacked_index", 0, -1),
        ("GET", LEASE),
        ("XRANGE", PROGRESS, "-", "+"),
        ("DEL", counters.KEY),
    ],
    "metrics": [
        ("HINCRBY", counters.KEY, "drained", 1),
        ("LRANGE", "cpu", 0, -1),
        ("RPOP", "cpu"),
        ("PUBLISH", "/0.celery.pidbox", "x"),
        ("DEL", LEASE),
    ],
}
ADMINISTRATION: list[tuple[str, ...]] = [
    ("CONFIG", "GET", "requirepass"),
    ("CONFIG", "SET", "maxmemory-policy", "allkeys-lru"),
    ("FLUSHALL",),
    ("FLUSHDB",),
    ("ACL", "LIST"),
    ("KEYS", "*"),
    ("MONITOR",),
    ("SHUTDOWN", "NOSAVE"),
    ("SWAPDB", "0", "1"),
    ("CLIENT", "KILL", "TYPE", "normal"),
    ("FUNCTION", "LIST"),
    ("REPLICAOF", "NO", "ONE"),
    ("SCRIPT", "FLUSH"),
]


@pytest.mark.parametrize(
    ("role", "command"),
    [(role, command) for role in FORBIDDEN for command in [*FORBIDDEN[role], *ADMINISTRATION]],
    ids=lambda value: value if isinstance(value, str) else " ".join(map(str, value[:2])),
)
def test_a_role_is_refused_what_is_not_its_work(
    role: str, command: tuple[Any, ...], connect: Connect
) -> None:
    with pytest.raises(NoPermissionError):
        connect(role).execute_command(*command)


def test_nobody_enters_without_a_password(guarded: GuardedValkey) -> None:
    with Redis(port=guarded.ports[0], retry=None) as redis, pytest.raises(AuthenticationError):
        redis.ping()


def test_a_broker_with_a_strange_certificate_gets_no_job(
    as_role: Role, table: Path, config: Any, tmp_path: Path
) -> None:
    settings = as_role("client")
    url, _, _ = settings.broker_url.get_secret_value().partition("&ssl_ca_certs")
    client = Client(type(settings).model_validate({"home": tmp_path, "broker_url": url}))
    with pytest.raises(BrokerUnavailable, match="ConnectionError"):
        client.submit(table=table, config=config)


def test_a_broker_without_tls_gets_no_password(as_role: Role, guarded: GuardedValkey, tls_port: int) -> None:
    url = as_role("client").broker_url.get_secret_value()
    plain = url.replace(str(tls_port), str(guarded.ports[0]))
    redis = Redis.from_url(plain, socket_connect_timeout=1, retry=None)
    with redis, pytest.raises(RedisError, match=r"SSL|Timeout"):
        redis.ping()


def test_whoever_may_not_submit_is_told_so(as_role: Role, table: Path, config: Any) -> None:
    with pytest.raises(BrokerUnavailable, match="refuses this user") as refused:
        Client(as_role("metrics")).submit(table=table, config=config)
    assert "NSS_TRAIN_BROKER_URL" in str(refused.value)
