"""Made-up inputs cause no crash, no hang, no side effect. ``make fuzz`` does each of these 10,000 times."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import InfrastructureError, ParameterError
from tasks.broker.message_guard import faults
from tasks.celery_tasks import read_message
from tasks.execution.delivery import Superseded
from tasks.jobs import versioning
from tasks.jobs.documents import Claim, StageMessage
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import JobRepository
from tasks.jobs.submission import SubmitMessage
from tasks.store.local import LocalStore
from tests.security import fuzz
from tests.security.conftest import Target, own_keys
from tests.upgrades.test_upgrades import JOB, VERSIONS, recorded

BATCH = 250


@pytest.fixture
def examples(long: bool) -> int:
    return 10_000 if long else 100


def test_a_message_is_read_or_refused(examples: int, tmp_path: Path) -> None:
    store = LocalStore(tmp_path)

    def check(message: Any) -> None:
        with suppress(ValidationError, ParameterError, Superseded):
            assert isinstance(read_message(message, store), StageMessage)

    fuzz.run(check, fuzz.stage_messages(), examples=examples)


def test_a_submission_is_read_or_refused(examples: int) -> None:
    def check(message: Any) -> None:
        with suppress(ValidationError, versioning.NewerVersion):
            assert isinstance(versioning.parse(SubmitMessage, message, what="x"), SubmitMessage)

    fuzz.run(check, fuzz.submissions(), examples=examples)


def test_a_config_is_parsed_or_refused_with_every_problem(examples: int) -> None:
    def check(config: Any) -> None:
        refusal = None
        try:
            parse_config(config)
        except ParameterError as error:
            refusal = error
        assert refusal is None or (refusal.problems and str(refusal))

    fuzz.run(check, fuzz.configs(), examples=examples)


def test_the_guard_has_an_opinion_of_every_line(examples: int) -> None:
    def check(line: bytes, anything: Any) -> None:
        assert isinstance(next(faults(anything, "cpu"), ""), str)
        with suppress(ValueError, RecursionError):
            message = json.loads(line)
            assert isinstance(next(faults(message, "cpu"), ""), str)

    fuzz.run(check, fuzz.envelopes(), fuzz.values, examples=examples)


def test_a_document_of_the_store_is_read_or_refused(examples: int, tmp_path: Path) -> None:
    stores = [recorded(number, tmp_path / f"v{number}") for number in VERSIONS]
    keys = [key for key in stores[0].list(f"jobs/{JOB}/") if key.endswith(".json")]
    honest = [(store, key, store.read(key)) for store in stores for key in keys]

    def check(data: st.DataObject) -> None:
        store, key, content = data.draw(st.sampled_from(honest))
        broken = data.draw(fuzz.changed(json.loads(content)) | fuzz.values)
        store.write(key, json.dumps(broken).encode())
        for read in readers(store):
            with suppress(InfrastructureError, ParameterError):
                read()
        store.write(key, content)

    fuzz.run(check, st.data(), examples=examples)


def readers(store: LocalStore) -> list[Any]:
    records = JobRepository(store, JOB)
    return [
        records.request,
        records.outcome,
        records.cancellation,
        records.charges.taken,
        lambda: records.marker(Stage.PREPARE_DATA),
        lambda: records.endings(Stage.PREPARE_DATA),
        lambda: records.read(records.keys.claim(Stage.PREPARE_DATA, 2), Claim),
    ]


def test_an_entry_of_a_ledger_is_read_or_refused(examples: int, tmp_path: Path) -> None:
    store, key = recorded(VERSIONS[-1], tmp_path / "store"), "privacy/birds/00000001.json"
    honest = json.loads(store.read(key))

    def check(broken: Any) -> None:
        store.write(key, json.dumps(broken).encode())
        with suppress(InfrastructureError):
            DatasetLedger(store, "birds").read()

    fuzz.run(check, fuzz.changed(honest) | fuzz.values, examples=examples)


def test_a_worker_lives_through_every_line(target: Target, examples: int) -> None:
    before, lines = target.stored(), list[bytes]()

    def collect(line: bytes) -> None:
        lines.append(line)

    fuzz.run(collect, fuzz.envelopes(), examples=examples)
    for start in range(0, len(lines), BATCH):
        for line in lines[start : start + BATCH]:
            target.push(line)
        assert target.does_honest_work()
    for queue in (target.settings.queue_cpu, target.settings.queue_cuda):
        assert target.app.redis.llen(queue) == 0
    made = own_keys(target.stored() - before)
    # The refusals of submissions, where their senders look for them.
    assert {key.rpartition("/")[2] for key in made if not key.startswith("open/")} <= {
        "request.json",
        "outcome.json",
    }
    assert "Unrecoverable error" not in target.log
