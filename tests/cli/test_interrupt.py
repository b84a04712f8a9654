"""Ctrl-C ends what the command began, and says so."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

import psutil

from tasks.client import Client
from tasks.jobs.documents import JobState
from tasks.settings import Settings, worker_environment
from tests.conftest import REPOSITORY

DEADLINE_S = 60


def started(settings: Settings, folder: Path, *words: str) -> subprocess.Popen[str]:
    """Start a command in a session of its own, as in a terminal."""
    return subprocess.Popen(
        [sys.executable, "-m", "tasks.cli", *words],
        env=worker_environment(settings),
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def interrupted(process: subprocess.Popen[str]) -> str:
    """Send a terminal's Ctrl-C to the process and its group, and return what it says."""
    os.killpg(process.pid, signal.SIGINT)
    _, said = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 130, said
    assert "Traceback" not in said
    return said


def first_status(process: subprocess.Popen[str], state: str) -> dict[str, Any]:
    """Return the first line of JSON with this state."""
    assert process.stdout is not None
    for line in process.stdout:
        found: dict[str, Any] = json.loads(line)
        if found["state"] == state:
            return found
    raise AssertionError(process.communicate()[1])


def table_in(folder: Path) -> None:
    rows = [f"{number},{number * 7 % 11}" for number in range(600)]
    (folder / "t.csv").write_text("\n".join(["a,b", *rows]) + "\n")


def test_an_interrupted_run_cancels_its_job_and_leaves_nothing(tiny_model: Path, tmp_path: Path) -> None:
    settings = Settings.model_validate({"home": tmp_path / "home"})
    table_in(tmp_path)
    process = started(
        settings, tmp_path, "run", "t.csv", "--json", "--set", f"training.pretrained_model={tiny_model}"
    )
    job_id = first_status(process, "running")["job_id"]
    children = psutil.Process(process.pid).children(recursive=True)
    said = interrupted(process)
    assert f"interrupted; job {job_id} is cancelled" in said
    assert Client(settings).status(job_id).state is JobState.CANCELLED
    assert psutil.wait_procs(children, timeout=DEADLINE_S)[1] == []


def test_an_interrupted_watch_leaves_the_job_alone(settings: Settings, tmp_path: Path) -> None:
    table_in(tmp_path)
    client = Client(settings)
    job_id = client.submit(table=tmp_path / "t.csv")
    process = started(settings, tmp_path, "watch", job_id[:18], "--json")
    assert first_status(process, "queued")["job_id"] == job_id
    said = interrupted(process)
    assert f"the job keeps running; `nss-train cancel {job_id}` ends it" in said
    assert client.status(job_id).state is JobState.QUEUED


INTERRUPTED_IMPORT = """
import importlib, sys

class Interrupting:
    def find_spec(self, name, *_):
        if name == "typer":
            raise KeyboardInterrupt

sys.meta_path.insert(0, Interrupting())
module, function = sys.argv[1].split(":")
getattr(importlib.import_module(module), function)()
"""


def test_an_interrupt_while_the_command_is_imported_is_one_line() -> None:
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    command = [sys.executable, "-c", INTERRUPTED_IMPORT, project["scripts"]["nss-train"]]
    done = subprocess.run(command, check=False, capture_output=True, text=True, timeout=DEADLINE_S)
    assert (done.returncode, done.stderr) == (130, "interrupted\n")
