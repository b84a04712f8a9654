"""A table becomes an adapter through four stages on real servers."""

from __future__ import annotations

import ast
import base64
import json
import re
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

from nss_train.contract import Stage
from tasks.app import App
from tasks.client import Client
from tasks.execution.delivery import Worker, run_stage
from tasks.jobs.documents import JobState, StageMessage
from tasks.jobs.ids import id_of_key
from tasks.jobs.keys import Keys
from tasks.jobs.submission import Submission
from tasks.local.stack import Flower, flower
from tasks.monitoring.snapshot import read_broker
from tasks.settings import Settings
from tasks.status import JobStatus, StageState
from tasks.submission import submit
from tests.pipeline.counting import CountingStore

WAIT_S = 420


def wait_for_end(client: Client, job_id: str) -> JobStatus:
    *_, last = client.watch(job_id, timeout_s=WAIT_S)
    return last


@pytest.fixture(scope="module")
def finished(deployment: Settings, table: Path, config: dict[str, Any]) -> JobStatus:
    client = Client(deployment)
    status = wait_for_end(client, client.submit(table=table, config=config, seed=7))
    assert status.state is JobState.SUCCEEDED, status.error
    return status


@pytest.mark.usefixtures("finished")
def test_a_machine_knows_the_base_model_of_its_jobs(deployment: Settings) -> None:
    (known,) = map(json.loads, (path.read_text() for path in (deployment.home / "known").glob("*.json")))
    assert "model.safetensors" in known["files"]
    assert known["adapters"]


def test_a_table_becomes_an_adapter(client: Client, finished: JobStatus, tmp_path: Path) -> None:
    folder = client.fetch(finished.job_id, tmp_path / "artifacts")
    names = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
    assert {
        "manifest.json",
        "train/safe-synthesizer-config.json",
        "train/adapter/adapter_config.json",
        "train/adapter/adapter_model.safetensors",
        "train/adapter/metadata_v2.json",
        "train/adapter/dataset_schema.json",
        "train/adapter/README.md",
        "dataset/training.csv",
    } <= names
    assert all(stage.state is StageState.DONE and stage.attempt == 1 for stage in finished.stages)


def test_the_adapter_loads_with_peft_and_has_moved(
    client: Client, finished: JobStatus, tiny_model: Path, tmp_path: Path
) -> None:
    folder = client.fetch(finished.job_id, tmp_path / "artifacts")
    script = """
import sys
from peft import PeftModel
from transformers import AutoModelForCausalLM
base = AutoModelForCausalLM.from_pretrained(sys.argv[1])
model = PeftModel.from_pretrained(base, sys.argv[2])
b = [p for n, p in model.named_parameters() if "lora_B" in n]
print(len(b), sum(float(p.abs().sum()) > 0 for p in b))
"""
    command = [sys.executable, "-c", script, str(tiny_model), str(folder / "train" / "adapter")]
    total, moved = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-2:]
    # PEFT starts every lora_B at zero.
    assert int(total) > 0
    assert moved == total


def test_jobs_at_once_and_one_from_a_bare_message_succeed(
    client: Client, app: App, table: Path, config: dict[str, Any], deployment: Settings, *, long: bool
) -> None:
    jobs = [client.submit(table=table, config=config, seed=number) for number in range(5 if long else 1)]
    app.store.upload("shared/birds.csv", table)
    bucket = deployment.effective_store_url.removeprefix("s3://").rstrip("/")
    message = {"table": f"s3://{bucket}/shared/birds.csv", "config": config, "idempotency_key": "bare"}
    app.send_task("nss_train.submit", kwargs=message, queue=deployment.queue_cpu)
    jobs.append(id_of_key("bare"))
    wait_until(lambda: app.store.exists(Keys(jobs[-1]).request))
    ends = [wait_for_end(client, job) for job in jobs]
    assert {end.state for end in ends} == {JobState.SUCCEEDED}, [end.error for end in ends]


def test_a_second_job_finds_the_prepared_model(
    client: Client, app: App, finished: JobStatus, table: Path, config: dict[str, Any]
) -> None:
    before = int(app.redis.hget("nss-train:counters", "model_cache_hits") or 0)
    status = wait_for_end(client, client.submit(table=table, config=config, seed=7))
    assert status.stages[1].figures["cache"] == "hit"
    assert int(app.redis.hget("nss-train:counters", "model_cache_hits") or 0) == before + 1


def test_the_same_inputs_give_the_same_adapter(
    client: Client, finished: JobStatus, table: Path, config: dict[str, Any], tmp_path: Path
) -> None:
    again = wait_for_end(client, client.submit(table=table, config=config, seed=7))
    adapters = [
        (client.fetch(job, tmp_path / job) / "train/adapter/adapter_model.safetensors").read_bytes()
        for job in (finished.job_id, again.job_id)
    ]
    assert adapters[0] == adapters[1]


@pytest.mark.parametrize("stage", list(Stage))
def test_second_delivery_of_a_committed_stage_costs_one_read(
    app: App, finished: JobStatus, deployment: Settings, stage: Stage
) -> None:
    store = CountingStore(app.store)
    before = store.snapshot(f"jobs/{finished.job_id}/")
    worker = Worker(
        name="test",
        store=store,
        redis=app.redis,
        settings=deployment,
        send_event=lambda *_args, **_fields: None,
    )
    children = psutil.Process().children()
    run_stage(StageMessage(job_id=finished.job_id, stage=stage), worker=worker)
    assert store.calls == ["read"]
    assert psutil.Process().children() == children
    assert store.snapshot(f"jobs/{finished.job_id}/") == before


def test_cancel_during_training_leaves_nothing_behind(
    client: Client, app: App, table: Path, config: dict[str, Any], deployment: Settings
) -> None:
    long = config | {"training": config["training"] | {"num_input_records_to_sample": 60_000}}
    job_id = client.submit(table=table, config=long)
    for status in client.watch(job_id, timeout_s=WAIT_S):
        if status.stages[2].progress:
            break
    asked = time.monotonic()
    client.cancel(job_id, reason="changed my mind", requested_by="test")

    def left() -> list[object]:
        lease = app.redis.get(f"nss-train:lease:{job_id}:train")
        scratch = deployment.scratch_dir.glob(f"{job_id}*")
        return [*training_processes(job_id), *scratch, *([lease] if lease else [])]

    while left() and time.monotonic() < asked + 10:
        time.sleep(0.05)
    assert not left()
    assert time.monotonic() - asked <= 5
    status = wait_for_end(client, job_id)
    assert (status.state, status.reason) == (JobState.CANCELLED, "changed my mind (by test)")
    after = wait_for_end(client, client.submit(table=table, config=config, seed=7))
    assert after.state is JobState.SUCCEEDED


def training_processes(job_id: str) -> list[int]:
    found = []
    for process in psutil.process_iter(["cmdline"]):
        line = " ".join(process.info["cmdline"] or [])
        if job_id in line and ".train." in line:
            found.append(process.pid)
    return found


def test_cancel_before_the_start_never_starts(
    app: App, table: Path, config: dict[str, Any], client: Client
) -> None:
    job_id = submit.submit(app, Submission(table=table, config=config, seed=1))
    client.cancel(job_id, reason="too late?", requested_by="test")
    assert wait_for_end(client, job_id).state is JobState.CANCELLED


def test_a_bad_table_ends_the_job_with_one_clear_error(
    client: Client, config: dict[str, Any], tmp_path: Path
) -> None:
    table = tmp_path / "ragged.csv"
    table.write_text("a,b\n1,2\n3,4,5\n6,7\n")
    status = wait_for_end(client, client.submit(table=table, config=config))
    assert status.state is JobState.FAILED
    assert status.error is not None
    assert status.error["type"] == "DataError"
    assert "3" in json.dumps(status.error["problems"])


def test_a_refused_message_leaves_its_reason_under_the_job(
    app: App, client: Client, deployment: Settings
) -> None:
    message = {
        "table": "s3://elsewhere/x.csv",
        "config": {"training": {"bogus": 1}},
        "idempotency_key": "refused",
    }
    app.send_task("nss_train.submit", kwargs=message, queue=deployment.queue_cpu)
    job_id = id_of_key("refused")
    wait_until(lambda: app.store.exists(Keys(job_id).outcome))
    status = client.status(job_id)
    assert status.state is JobState.FAILED
    assert status.error is not None
    assert "training.bogus" in json.dumps(status.error)


def test_flower_shows_the_stages(
    deployment: Settings, client: Client, table: Path, config: dict[str, Any]
) -> None:
    with flower(deployment) as dashboard:
        wait_until(lambda: sees_workers(dashboard))
        ended = wait_for_end(client, client.submit(table=table, config=config, seed=7))
        wait_until(lambda: "artifacts" in shown(dashboard, ended.job_id, Stage.SAVE_MODEL))
        result = ast.literal_eval(shown(dashboard, ended.job_id, Stage.PREPARE_DATA))
        names = {task["name"] for task in flower_tasks(dashboard).values()}
    assert {f"nss_train.{stage}" for stage in Stage} <= names
    assert (result["warnings"], result["told"]) == (len(ended.warnings), list(ended.warnings))


def test_flower_and_the_exporter_show_a_training_that_runs(
    deployment: Settings, client: Client, app: App, table: Path, config: dict[str, Any]
) -> None:
    long = config | {"training": config["training"] | {"num_input_records_to_sample": 60_000}}
    with flower(deployment) as dashboard:
        wait_until(lambda: sees_workers(dashboard))
        job_id = client.submit(table=table, config=long)
        wait_until(lambda: "s left" in shown(dashboard, job_id), deadline_s=WAIT_S)
        expected = rf"{job_id} train: step \d+/\d+, loss [\d.]+, \d+ s left"
        assert re.fullmatch(expected, shown(dashboard, job_id))
        wait_until(lambda: read_broker(app.redis, deployment).running == {"cpu": 0, "cuda": 1})
        client.cancel(job_id, reason="seen", requested_by="test")
    wait_for_end(client, job_id)


def shown(dashboard: Flower, job_id: str, stage: Stage = Stage.TRAIN) -> str:
    """Return what Flower shows as the result of a job's stage."""
    found = [task for task in flower_tasks(dashboard).values() if job_id in str(task["kwargs"])]
    return next((str(task["result"]) for task in found if task["name"] == f"nss_train.{stage}"), "")


def flower_tasks(dashboard: Flower) -> dict[str, Any]:
    return flower_api(dashboard, "tasks")


def flower_api(dashboard: Flower, what: str) -> dict[str, Any]:
    request = urllib.request.Request(f"{dashboard.url}/api/{what}")
    login = base64.b64encode(f"admin:{dashboard.password}".encode()).decode()
    request.add_header("Authorization", f"Basic {login}")
    with urllib.request.urlopen(request, timeout=10) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def sees_workers(dashboard: Flower) -> bool:
    """Tell whether Flower receives the workers' events: their heartbeats make them alive."""
    try:
        alive = flower_api(dashboard, "workers?status=true")
    except OSError:
        return False
    return list(alive.values()) == [True, True]


def wait_until(happened: Callable[[], bool], *, deadline_s: float = 60) -> None:
    deadline = time.monotonic() + deadline_s
    while not happened():
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.1)
