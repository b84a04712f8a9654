"""A missing package is reported before any work, with what to install."""

from __future__ import annotations

import re
import tomllib
from datetime import UTC, datetime
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import NoReturn

import pytest
from redis import Redis

from nss_train import extras
from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.data.prepare import prepare
from nss_train.errors import NotInstalled, from_json, to_json
from tasks.execution.delivery import TryLater, Worker, run_stage
from tasks.jobs.documents import JobRequest, Outcome, StageMessage
from tasks.jobs.repository import AttemptsExhausted, JobRepository
from tasks.jobs.table import describe_table, upload_table
from tasks.local.servers import Valkey
from tasks.settings import Settings
from tasks.store.local import LocalStore

PROJECT = tomllib.loads((Path(__file__).parents[3] / "pyproject.toml").read_text())["project"]
JOB = "job-0001"
REMEDY = "opacus: not installed here; pip install 'nss-train[private]'"
PRIVATE = parse_config({"privacy": {"dp_enabled": True, "delta": 1e-5}})


@pytest.fixture
def without_opacus(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda package: package != "opacus")


@pytest.mark.parametrize("extra", extras.PACKAGES)
def test_every_package_that_is_asked_for_comes_with_its_extra(extra: str) -> None:
    brought = {_name(one) for one in PROJECT["optional-dependencies"][extra]}
    made_by = packages_distributions()
    for package in extras.PACKAGES[extra]:
        assert {_name(one) for one in made_by[package.partition(".")[0]]} & brought, package


def test_all_extras_together_are_each_of_them() -> None:
    (everything,) = PROJECT["optional-dependencies"]["all"]
    assert set(everything.split("[")[1].rstrip("]").split(",")) == set(extras.PACKAGES) - {"train"}


def test_several_missing_packages_are_one_line_with_every_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("nss_train.extras.is_installed", lambda _: False)
    with pytest.raises(NotInstalled) as caught:
        extras.require_extras(extras.PRIVATE, extras.FLOWER)
    assert str(caught.value) == (
        "dp_accounting, opacus, opendp and 3 more: not installed here; "
        "pip install 'nss-train[private,flower]'"
    )
    assert caught.value.exit_code == 2
    assert isinstance(from_json(to_json(caught.value)), NotInstalled)


@pytest.mark.usefixtures("without_opacus")
def test_a_private_table_is_not_even_read_where_nobody_could_train_it(tmp_path: Path) -> None:
    with pytest.raises(NotInstalled, match="nss-train\\[private\\]"):
        prepare(tmp_path / "no.csv", PRIVATE, model=tmp_path, seed=1)


@pytest.mark.usefixtures("without_opacus")
def test_a_worker_without_an_extra_fetches_nothing_and_says_what_is_missing(
    settings: Settings, store: LocalStore, valkey: Valkey, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fetches(*_: object, **__: object) -> NoReturn:
        raise AssertionError("it was fetched")

    monkeypatch.setattr("tasks.execution.attempt.prepare_folder", fetches)
    records = _submitted(store, tmp_path)
    with Redis.from_url(valkey.url) as redis:
        worker = Worker(name="test", store=store, redis=redis, settings=settings, send_event=print)
        message = StageMessage(job_id=JOB, stage=Stage.PREPARE_DATA)
        for _ in range(settings.max_attempts):
            with pytest.raises(TryLater, match=re.escape(REMEDY)):
                run_stage(message, worker=worker)
        with pytest.raises(AttemptsExhausted):
            run_stage(message, worker=worker)
    ended = records.outcome()
    assert ended is not None
    assert ended.outcome is Outcome.FAILED
    assert ended.error is not None
    assert {problem["remedy"] for problem in ended.error["problems"]} == {REMEDY}


def _submitted(store: LocalStore, folder: Path) -> JobRepository:
    """Submit a strictly private job, which reports little."""
    records, table = JobRepository(store, JOB), folder / "birds.csv"
    table.write_text("species\nAdelie\n")
    described = describe_table(table, strict=True)
    upload_table(table, records, str(described.input))
    request = JobRequest(
        job_id=JOB,
        table=described,
        config=PRIVATE,
        seed=1,
        submitted_at=datetime.now(UTC),
        budget_name="job-" + "0" * 32,
    )
    assert records.submitted(request)
    return records


def _name(requirement: str) -> str:
    """Return the name of a distribution as its index spells it."""
    return re.split(r"[\[<>=! ]", requirement)[0].lower().replace("_", "-").replace(".", "-")
