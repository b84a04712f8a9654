"""A job is one trace, across all processes that work on it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.local.server import free_ports
from tasks.settings import Settings, worker_environment
from tests.collector import Collector, Span, collector
from tests.pipeline.conftest import worker

STAGES = ["prepare_data", "load_model", "train", "save_model"]


def submit(settings: Settings, table: Path, config: Path, *options: str) -> str:
    """Submit in a new process: a process is traced or not for as long as it lives."""
    command = [sys.executable, "-m", "tasks.cli", "submit", str(table), "--config", str(config), *options]
    done = subprocess.run(
        [*command, "--json"], env=worker_environment(settings), check=True, capture_output=True, text=True
    )
    return str(json.loads(done.stdout)["job_id"])


def end_of(settings: Settings, job_id: str) -> JobState:
    *_, last = Client(settings.model_copy(update={"otlp_endpoint": ""})).watch(job_id, timeout_s=120)
    return last.state


@pytest.fixture(scope="module")
def config_file(config: dict[str, Any], tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("config") / "config.json"
    path.write_text(json.dumps(config))
    return path


@pytest.fixture(scope="module")
def traced(
    s3_settings: Settings, table: Path, config_file: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[Collector, str]]:
    """Yield a collector and the id of a job that succeeded while it listened."""
    logs = tmp_path_factory.mktemp("logs")
    with collector() as collected, ExitStack() as workers:
        update = {"otlp_endpoint": collected.endpoint, "queue_cpu": "traced-cpu", "queue_cuda": "traced-cuda"}
        settings = s3_settings.model_copy(update=update)
        for queue in (settings.queue_cpu, settings.queue_cuda):
            workers.enter_context(worker(settings, queue, logs / f"{queue}.log"))
        job_id = submit(settings, table, config_file)
        assert end_of(settings, job_id) is JobState.SUCCEEDED
        deadline = time.monotonic() + 20
        while not any(span.name == "job" for span in collected.spans) and time.monotonic() < deadline:
            time.sleep(0.2)
        yield collected, job_id


def named(collected: Collector, name: str) -> list[Span]:
    return sorted((s for s in collected.spans if s.name == name), key=lambda s: s.began_s)


def test_a_job_is_one_trace_with_one_root(traced: tuple[Collector, str]) -> None:
    collected, _ = traced
    assert len({span.trace_id for span in collected.spans}) == 1
    roots = [span for span in collected.spans if not span.parent_id]
    assert [span.name for span in roots] == ["job"]
    assert roots[0].attributes == {"nss_train.outcome": "succeeded"}
    known = {span.span_id for span in collected.spans}
    assert {span.parent_id for span in collected.spans} - known == {""}


def test_the_stages_follow_each_other_in_the_trace(traced: tuple[Collector, str]) -> None:
    collected, _ = traced
    spans = [named(collected, stage) for stage in STAGES]
    assert [len(found) for found in spans] == [1, 1, 1, 1]
    ordered = [found[0] for found in spans]
    assert all(a.ended_s <= b.began_s for a, b in pairwise(ordered))
    for stage in ordered:
        steps = sorted((s for s in collected.spans if s.parent_id == stage.span_id), key=lambda s: s.began_s)
        assert [s.name for s in steps] == ["fetch", "run", "upload", "commit"]


def test_time_in_a_queue_and_of_the_submission_is_told(traced: tuple[Collector, str]) -> None:
    collected, _ = traced
    waits = named(collected, "queued")
    assert [span.attributes["nss_train.queue"] for span in waits] == [
        "traced-cpu",
        "traced-cpu",
        "traced-cuda",
        "traced-cpu",
    ]
    (submission,) = named(collected, "submit")
    assert submission.ended_s <= named(collected, "prepare_data")[0].began_s + 1


@pytest.mark.long
def test_a_collector_that_is_away_delays_no_job(
    s3_settings: Settings, table: Path, config_file: Path, tmp_path: Path
) -> None:
    update = {
        "otlp_endpoint": f"http://127.0.0.1:{free_ports(1)[0]}/v1/traces",
        "queue_cpu": "untold-cpu",
        "queue_cuda": "untold-cuda",
    }
    settings = s3_settings.model_copy(update=update)
    with ExitStack() as workers:
        for queue in (settings.queue_cpu, settings.queue_cuda):
            workers.enter_context(worker(settings, queue, tmp_path / f"{queue}.log"))
        assert end_of(settings, submit(settings, table, config_file)) is JobState.SUCCEEDED
