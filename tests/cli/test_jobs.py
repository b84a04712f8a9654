"""The commands about jobs report what they did."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nss_train.contract import Stage
from nss_train.errors import DataError, ParameterError
from tasks import cli
from tasks.app import make_app
from tasks.broker.lease import Lease
from tasks.client import Client
from tasks.jobs.documents import JobState, Outcome
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings, worker_environment


def said(settings: Settings, *words: str) -> str:
    command = [sys.executable, "-m", "tasks.cli", *words]
    done = subprocess.run(
        command, env=worker_environment(settings), check=True, capture_output=True, text=True, timeout=120
    )
    return done.stdout.strip()


def test_cancelling_says_whether_the_job_has_ended(settings: Settings, tmp_path: Path) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,x\n2,y\n3,z\n")
    client, redis = Client(settings), make_app(settings).redis
    idle, busy = (client.submit(table=table) for _ in range(2))
    assert said(settings, "cancel", idle) == f"{idle}: cancelled"
    lease = Lease.acquire(redis, busy, Stage.PREPARE_DATA, ttl_s=60)
    assert lease is not None
    assert said(settings, "cancel", busy) == f"{busy}: cancellation is asked for"
    assert client.status(idle).ended
    assert not client.status(busy).ended
    lease.release()


def submitted(settings: Settings, folder: Path, *keys: str) -> list[str]:
    table = folder / "t.csv"
    table.write_text("a,b\n1,x\n2,y\n3,z\n")
    return [Client(settings).submit(table=table, idempotency_key=key) for key in keys]


def run(settings: Settings, monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    return cli.run(words)


def test_the_beginning_of_an_id_is_enough_where_it_is_one_jobs(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    first, second = submitted(settings, tmp_path, "one", "two")
    client = Client(settings)
    assert client.find(first) == first
    assert client.find(first[:7]) == first  # key-7692c3…, key-3fc4cc…
    assert run(settings, monkeypatch, "cancel", second[:7]) == 0
    assert client.status(second).state is JobState.CANCELLED
    assert client.status(first).state is JobState.QUEUED
    capsys.readouterr()
    for command in ("status", "watch", "cancel", "logs", "sample", "audit"):
        assert run(settings, monkeypatch, command, "key-") == 2
        said = capsys.readouterr().err
        assert first in said
        assert second in said


HALF = "a\udcff"
"""A text as Python reads it from a command line whose last byte is not UTF-8."""


def test_a_reason_with_half_a_character_is_refused_and_the_job_goes_on(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job_id,) = submitted(settings, tmp_path, "one")
    assert run(settings, monkeypatch, "cancel", job_id, "--reason", HALF) == 2
    assert "- reason = 'a\\\\udcff': it has half a character" in capsys.readouterr().err
    with pytest.raises(ParameterError, match="requested_by"):
        Client(settings).cancel(job_id, reason="x", requested_by=HALF)
    assert Client(settings).status(job_id).state is JobState.QUEUED


@pytest.mark.parametrize("option", ["--key", "--family", "--tenant", "--webhook"])
def test_a_submission_with_half_a_character_is_refused(
    option: str,
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    table = tmp_path / "t.csv"
    table.write_text("a,b\n1,x\n")
    assert run(settings, monkeypatch, "submit", str(table), option, HALF) == 2
    assert capsys.readouterr().err.count("= 'a\\\\udcff': ") == 1
    assert list(Client(settings).list()) == []


@pytest.mark.parametrize("beginning", ["../etc", "", "Key", "key_", "-", "x" * 65, "key-\n"])
def test_what_no_id_begins_with_is_looked_for_nowhere(beginning: str, settings: Settings) -> None:
    with pytest.raises(ParameterError, match="Not a job id"):
        Client(settings).find(beginning)


def test_an_id_that_is_whole_is_its_own_though_another_begins_like_it(
    settings: Settings, tmp_path: Path
) -> None:
    (whole,) = submitted(settings, tmp_path, "one")
    store = make_app(settings).store
    store.write(f"jobs/{whole}-more/request.json", store.read(f"jobs/{whole}/request.json"))
    assert Client(settings).find(whole) == whole


def test_watching_as_json_prints_a_status_a_line_and_the_end_last(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (job_id,) = submitted(settings, tmp_path, "one")
    records = JobRepository(make_app(settings).store, job_id)
    records.finish(Outcome.FAILED, error=DataError("The table cannot be trained on."))
    assert run(settings, monkeypatch, "watch", job_id, "--json") == 2
    *_, last = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert (last["job_id"], last["state"], last["error"]["type"]) == (job_id, "failed", "DataError")


def test_ids_are_whole_at_eighty_columns(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    ids = submitted(settings, tmp_path, "one", "two")
    monkeypatch.setenv("COLUMNS", "80")
    assert run(settings, monkeypatch, "list") == 0
    said = capsys.readouterr().out
    assert all(job_id in said for job_id in ids)
    assert max(map(len, said.splitlines())) <= 80
