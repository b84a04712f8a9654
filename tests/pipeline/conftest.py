"""A deployment for the tests: real Valkey, a real S3 server, two workers as separate processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tasks.app import make_app
from tasks.client import Client
from tasks.settings import Settings, worker_environment

PENGUINS = "species,island,bill_length_mm,body_mass_g\n"


@pytest.fixture(scope="session")
def table(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Write a table of 60 rows that trains in seconds."""
    path = tmp_path_factory.mktemp("tables") / "birds.csv"
    species = ("Adelie", "Gentoo", "Chinstrap")
    rows = [
        f"{species[i % 3]},{'Dream' if i % 2 else 'Biscoe'},{35 + i / 10},{3000 + 25 * i}" for i in range(60)
    ]
    path.write_text(PENGUINS + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def config(tiny_model: Path) -> dict[str, Any]:
    """Return a config that trains the tiny model on the table once."""
    return {
        "data": {"holdout": 0, "random_state": 1},
        "preflight": {"disabled_checks": ["dataset.size"]},
        "training": {
            "pretrained_model": str(tiny_model),
            "num_input_records_to_sample": 60,
            "gradient_accumulation_steps": 2,
            "lora_r": 4,
        },
    }


@contextmanager
def worker(settings: Settings, queue: str, log: Path, *options: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a worker process on one queue, and end it afterwards."""
    command = [sys.executable, "-m", "tasks.worker", "--queues", queue, "--name", f"{queue}@test", *options]
    with (
        log.open("ab") as output,
        subprocess.Popen(
            command, env=worker_environment(settings), stdout=output, stderr=output, start_new_session=True
        ) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(30)
            except subprocess.TimeoutExpired:
                process.kill()


@pytest.fixture(scope="package")
def deployment(s3_settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Settings]:
    """Run two workers, one per queue, on real Valkey and real S3."""
    logs = tmp_path_factory.mktemp("logs")
    with ExitStack() as stack:
        for queue in (s3_settings.queue_cpu, s3_settings.queue_cuda):
            stack.enter_context(worker(s3_settings, queue, logs / f"{queue}.log"))
        yield s3_settings


@pytest.fixture
def client(deployment: Settings) -> Client:
    return Client(deployment)


@pytest.fixture
def app(deployment: Settings) -> Any:
    return make_app(deployment)
