"""The exporter's metrics, read from a real Redis and a real store by a real HTTP client."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families
from redis import Redis

from nss_train.contract import Event
from tasks.app import connect_redis
from tasks.broker import queues, workers
from tasks.jobs.documents import Outcome
from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tasks.monitoring.exporter import make_server_on
from tasks.settings import Settings, worker_environment
from tasks.telemetry import counters, histograms
from tasks.telemetry.histograms import QUEUE_WAIT_SECONDS, STAGE_SECONDS, TrainingMeter
from tasks.worker import announce
from tests.deploy.test_files import ACTIONS, METRICS

Samples = dict[tuple[str, frozenset[tuple[str, str]]], float]


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Valkey]:
    with Valkey(tmp_path / "valkey") as running:
        yield running


@pytest.fixture
def mine(server: Valkey, tmp_path: Path) -> Settings:
    given = {
        "home": tmp_path / "home",
        "broker_url": server.url,
        "cuda_queues": {"cuda-80g": 80, "cuda-24g": 24},
    }
    return Settings.model_validate(given)


@pytest.fixture
def redis(mine: Settings) -> Redis:
    return connect_redis(mine)


@pytest.fixture
def url(mine: Settings) -> Iterator[str]:
    (mine.home / "store").mkdir(parents=True)
    with make_server_on(mine, host="127.0.0.1", port=0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{listening.server_port}"
        listening.shutdown()


def get(url: str) -> str:
    with urllib.request.urlopen(url, timeout=30) as answer:
        return str(answer.read().decode())


def samples(url: str) -> Samples:
    families = text_string_to_metric_families(get(f"{url}/metrics"))
    return {(s.name, frozenset(s.labels.items())): s.value for family in families for s in family.samples}


def value(found: Samples, name: str, **labels: str) -> float | None:
    return found.get((f"nss_train_{name}", frozenset(labels.items())))


def fill(redis: Redis) -> None:
    """Write a bit of everything."""
    workers.publish(redis, "cpu@a", running={"cpu": 2}, gpu_bytes={"0": 2**30})
    histograms.observe(redis, STAGE_SECONDS, ("train", "succeeded"), 42.0)
    histograms.observe(redis, QUEUE_WAIT_SECONDS, ("cpu",), 0.5)
    redis.hset(histograms.LOSSES, "cpu@a", "1.5")


def test_every_metric_that_the_alerts_and_the_dashboard_name_is_there(url: str, redis: Redis) -> None:
    fill(redis)
    names = {name for name, _ in samples(url)}
    assert names >= METRICS


def test_every_action_is_counted_from_zero(url: str, redis: Redis) -> None:
    counters.count(redis, counters.Action.DRAINED)
    found = samples(url)
    assert {action for action in ACTIONS if value(found, "events_total", action=action) is None} == set()
    assert value(found, "events_total", action="drained") == 1
    assert value(found, "events_total", action="webhooks_failed") == 0
    assert value(found, "jobs_total", outcome="failed") == 0


def test_a_stage_waits_in_whatever_list_of_its_queue_it_is(url: str, redis: Redis) -> None:
    redis.lpush("cpu", "x")
    redis.lpush("cuda-80g", "x")
    redis.lpush(queues.lists("cuda-80g")[2], "x", "x")
    workers.publish(redis, "cpu@a", running={"cpu": 1}, gpu_bytes={})
    found = samples(url)
    assert value(found, "stages", queue="cpu", state="waiting") == 1
    assert value(found, "stages", queue="cuda-80g", state="waiting") == 3
    assert value(found, "stages", queue="cuda-24g", state="waiting") == 0
    assert value(found, "stages", queue="cpu", state="running") == 1
    expected = {
        "cpu": {"waiting": 1, "running": 1},
        "cuda-24g": {"waiting": 0, "running": 0},
        "cuda-80g": {"waiting": 3, "running": 0},
    }
    assert json.loads(get(f"{url}/scale")) == expected


def test_a_worker_that_says_nothing_is_down_and_later_forgotten(url: str, redis: Redis) -> None:
    fill(redis)
    now = workers.now_s(redis)
    for name, age_s in (("cuda@silent", workers.UP_S + 1), ("cuda@gone", workers.FORGOTTEN_S + 1)):
        old = workers.WorkerInfo(seen_s=now - age_s, running={"cuda-24g": 1}, gpu_bytes={"0": 1})
        redis.hset(workers.WORKERS, name, old.model_dump_json())
    workers.publish(redis, "cpu@a", running={}, gpu_bytes={})
    found = samples(url)
    assert value(found, "worker_up", worker="cpu@a") == 1
    assert value(found, "worker_up", worker="cuda@silent") == 0
    assert value(found, "worker_up", worker="cuda@gone") is None
    # What a dead worker last reported of itself is no longer true.
    assert value(found, "stages", queue="cuda-24g", state="running") == 0
    assert value(found, "gpu_memory_bytes", worker="cuda@silent", device="0") is None


def test_seconds_are_put_into_their_bucket(url: str, redis: Redis) -> None:
    for seconds in (-1.0, 1.0, 42.0, 10**7):
        histograms.observe(redis, QUEUE_WAIT_SECONDS, ("cuda",), seconds)
    found = samples(url)
    expected = {"1": 2, "15": 2, "60": 3, "259200": 3, "+Inf": 4}
    for bound, below in expected.items():
        assert value(found, "queue_wait_seconds_bucket", queue="cuda", le=bound) == below, bound
    assert value(found, "queue_wait_seconds_count", queue="cuda") == 4
    assert value(found, "queue_wait_seconds_sum", queue="cuda") == pytest.approx(10**7 + 43)


def test_without_a_broker_the_exporter_says_so_and_nothing_is_scaled(
    url: str, server: Valkey, redis: Redis
) -> None:
    fill(redis)
    server.kill()
    found = samples(url)
    assert value(found, "broker_up") == 0
    assert value(found, "store_up") == 1
    assert value(found, "jobs_open") == 0
    assert value(found, "stages", queue="cpu", state="waiting") is None
    with pytest.raises(urllib.error.HTTPError, match="503"):
        get(f"{url}/scale")


def test_without_a_store_the_exporter_says_so_and_does_not_count_as_gone(
    tmp_path: Path, server: Valkey
) -> None:
    given = {
        "home": tmp_path,
        "broker_url": server.url,
        "store_url": "s3://none",
        "s3_endpoint": "127.0.0.1:9",
    }
    with make_server_on(Settings.model_validate(given), host="127.0.0.1", port=0) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        found = samples(f"http://127.0.0.1:{listening.server_port}")
        listening.shutdown()
    assert value(found, "store_up") == 0
    assert value(found, "broker_up") == 1
    assert value(found, "jobs_open") != value(found, "jobs_open")  # not a number, but there


def test_open_jobs_are_counted_in_the_store(url: str, mine: Settings) -> None:
    (mine.home / "store" / "open").mkdir(parents=True)
    for number in range(3):
        (mine.home / "store" / "open" / f"job-000{number}").write_text("x")
    assert value(samples(url), "jobs_open") == 3


def test_an_ended_job_is_counted_once(url: str, redis: Redis) -> None:
    for _ in range(2):
        histograms.count_job(redis, "job-0001", Outcome.FAILED)
    histograms.count_job(redis, "job-0002", Outcome.FAILED)
    assert value(samples(url), "jobs_total", outcome="failed") == 2


def step(number: int, **fields: Any) -> Event:
    return Event(action="train.step", fields={"step": number, **fields})


def test_a_training_adds_its_steps_and_shows_its_loss(
    url: str, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(histograms, "FLUSH_S", 0.0)
    workers.publish(redis, "cuda@a", running={}, gpu_bytes={})
    meter = TrainingMeter(redis, worker="cuda@a")
    meter.take(Event(action="train.started", fields={"step": 5, "total_steps": 9}))
    time.sleep(0.05)
    meter.take(step(6, loss=2.5, tokens_per_s=1000.0))
    meter.take(step(8, loss=2.0, tokens_per_s=1000.0))
    during = samples(url)
    meter.close()
    after = samples(url)
    assert value(during, "steps_total") == 3  # those before a resumption were counted in another attempt
    assert 40 <= (value(after, "tokens_total") or 0) < 5000
    assert value(during, "training_loss", worker="cuda@a") == 2.0
    assert value(after, "training_loss", worker="cuda@a") is None


def test_an_emptied_redis_begins_at_zero(url: str, redis: Redis) -> None:
    fill(redis)
    redis.flushall()
    found = samples(url)
    assert value(found, "steps_total") == 0
    assert value(found, "events_total", action="fenced") == 0


def test_the_command_serves_until_it_is_told_to_end(mine: Settings) -> None:
    (port,) = free_ports(1)
    command = [sys.executable, "-m", "tasks.cli", "metrics", "--port", str(port)]
    with subprocess.Popen(command, env=worker_environment(mine)) as process:
        deadline = time.monotonic() + 60
        while True:
            try:
                found = samples(f"http://127.0.0.1:{port}")
                break
            except urllib.error.URLError:
                assert time.monotonic() < deadline
                time.sleep(0.2)
        process.terminate()
        assert process.wait(30) == 0
    assert value(found, "broker_up") == 1


def test_no_label_names_a_job(url: str, redis: Redis) -> None:
    fill(redis)
    histograms.count_job(redis, "20260101-000000-abcdef01", Outcome.SUCCEEDED)
    names = {label for _, labels in samples(url) for label, _ in labels}
    assert names <= {"queue", "state", "worker", "device", "action", "outcome", "stage", "le"}
    assert "abcdef01" not in get(f"{url}/metrics")


def test_promtool_finds_nothing_to_say(url: str, redis: Redis) -> None:
    promtool = shutil.which("promtool")
    if promtool is None:
        return
    fill(redis)
    found = subprocess.run(
        [promtool, "check", "metrics"],
        input=get(f"{url}/metrics"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stdout + found.stderr


def test_memory_of_devices_is_read_as_nvidia_smi_writes_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    program = tmp_path / "nvidia-smi"
    lines = ("0, GPU-a, 1024", "1, GPU-b, 2", "2, GPU-c, [Insufficient Permissions]", "3, GPU-d, 9")
    program.write_text(f"#!/bin/sh\ncat <<END\n{chr(10).join(lines)}\nEND\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    mine = ("GPU-a", "GPU-b", "GPU-c")
    assert announce.gpu_memory(mine) == {"0": 2**30, "1": 2 * 2**20}
    program.write_text("#!/bin/sh\nexit 9\n")
    assert announce.gpu_memory(mine) == {}
