"""A job through Celery on a CUDA device, killed in the middle. ``make gpu-check`` runs it."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from nss_train.contract import TRAIN_STEP
from tasks.app import connect_redis
from tasks.client import Client
from tasks.execution.progress import stream_key
from tasks.jobs.documents import JobState
from tasks.local.valkey import Valkey
from tasks.settings import Settings
from tests.device import held, held_in_the_end

from .conftest import worker

pytestmark = pytest.mark.cuda

DEADLINE_S = 120.0
STEPS = 60


@pytest.fixture
def settings(tmp_path: Path) -> Iterator[Settings]:
    """Run a broker; the store is a folder."""
    (tmp_path / "valkey").mkdir()
    with Valkey(tmp_path / "valkey") as valkey:
        yield Settings.model_validate(
            {
                "home": tmp_path / "home",
                "broker_url": valkey.url,
                "lease_ttl_s": 6.0,
                "visibility_timeout_s": 10.0,
                "reconcile_every_s": 3.0,
                "checkpoint_every_steps": 1,
            }
        )


def test_a_job_killed_in_the_middle_goes_on_and_leaves_nothing_on_the_device(
    settings: Settings, table: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    before = held()
    config["data"] |= {"max_sequences_per_example": 1}
    config["training"] |= {"num_input_records_to_sample": 2 * STEPS}
    with worker(settings, "cpu,cuda", tmp_path / "worker.log") as process:
        client = Client(settings)
        job_id = client.submit(table=table, config=config, seed=1)
        wait_for_step(settings, job_id, 3)
        (stage, *_) = stages_of(process.pid)
        during = held()
        stage.kill()
        *_, last = client.watch(job_id, timeout_s=DEADLINE_S)
    assert last.state is JobState.SUCCEEDED, last.error
    assert during.exceeds(before)  # else nothing could be seen to be given back
    steps = steps_of(settings, job_id)
    second = min(step for attempt, step in steps if attempt == 2)
    assert second > 1  # it went on from a checkpoint
    assert {step for _, step in steps} == set(range(1, max(step for _, step in steps) + 1))
    assert not held_in_the_end(before).exceeds(before)


def stages_of(worker_pid: int) -> list[psutil.Process]:
    """Return the processes of the worker's stages, the first one first."""
    children = psutil.Process(worker_pid).children(recursive=True)
    return sorted(
        (child for child in children if "nss_train.child" in child.cmdline()), key=lambda child: child.pid
    )


def wait_for_step(settings: Settings, job_id: str, wanted: int) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not any(step >= wanted for _, step in steps_of(settings, job_id)):
        assert time.monotonic() < deadline, f"{job_id} took no {wanted} steps"
        time.sleep(0.01)


def steps_of(settings: Settings, job_id: str) -> list[tuple[int, int]]:
    """Return attempt and number of each optimizer step that was reported."""
    events = [json.loads(entry[b"event"]) for _, entry in connect_redis(settings).xrange(stream_key(job_id))]
    return [(event["attempt"], event["fields"]["step"]) for event in events if event["action"] == TRAIN_STEP]
