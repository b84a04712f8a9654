"""Whatever is handed in: no crash, no hang, no side effect. ``make fuzz`` does each of these 10,000 times."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import strategies as st
from pydantic import ValidationError

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.errors import InfrastructureError, NSSTrainError, ParameterError
from tasks import version
from tasks.job import Claim, Ending, StageMessage, SubmitMessage
from tasks.ledger import DatasetLedger
from tasks.records import JobRecords
from tasks.run import TryLater
from tasks.stages import read_message
from tasks.store.local import LocalStore
from tasks.transport import faults
from tests.security import fuzz
from tests.security.conftest import Target
from tests.security.test_messages import own_keys
from tests.upgrades.test_upgrades import JOB, VERSIONS, recorded

BATCH = 50


@pytest.fixture
def examples(long: bool) -> int:
    return 10_000 if long else 100


def test_a_message_is_read_or_refused(examples: int) -> None:
    def check(message: Any) -> None:
        try:
            assert isinstance(read_message(message), StageMessage)
        except (ValidationError, ParameterError, TryLater):
            pass

    fuzz.run(check, fuzz.stage_messages(), examples=examples)


def test_a_submission_is_read_or_refused(examples: int) -> None:
    def check(message: Any) -> None:
        try:
            assert isinstance(version.parse(SubmitMessage, message, what="x"), SubmitMessage)
        except (ValidationError, version.NewerVersion):
            pass

    fuzz.run(check, fuzz.submissions(), examples=examples)


def test_a_config_is_parsed_or_refused_with_every_problem(examples: int) -> None:
    def check(config: Any) -> None:
        try:
            parse_config(config)
        except ParameterError as error:
            assert error.problems
            assert str(error)

    fuzz.run(check, fuzz.configs(), examples=examples)


def test_the_guard_has_an_opinion_of_every_line(examples: int) -> None:
    def check(line: bytes, anything: Any) -> None:
        assert isinstance(next(faults(anything, "cpu"), ""), str)
        try:
            message = json.loads(line)
        except (ValueError, RecursionError):
            return
        assert isinstance(next(faults(message, "cpu"), ""), str)

    fuzz.run(check, fuzz.envelopes(), fuzz.values, examples=examples)


def test_a_document_of_the_store_is_read_or_refused(examples: int, tmp_path: Path) -> None:
    stores = [recorded(number, tmp_path / f"v{number}") for number in VERSIONS]
    keys = [key for key in stores[0].list(f"jobs/{JOB}/") if key.endswith(".json")]
    honest = {(store, key): store.read(key) for store in stores for key in keys}

    def check(data: st.DataObject) -> None:
        store, key = data.draw(st.sampled_from(sorted(honest, key=str)))
        broken = data.draw(fuzz.changed(json.loads(honest[store, key])) | fuzz.values)
        store.write(key, json.dumps(broken).encode())
        try:
            read_everything(store, key)
        except (InfrastructureError, ParameterError):
            pass
        finally:
            store.write(key, honest[store, key])

    fuzz.run(check, st.data(), examples=examples)


def read_everything(store: LocalStore, key: str) -> None:
    records = JobRecords(store, JOB)
    for read in (records.request, records.outcome, records.cancellation, records.charges.taken):
        read()
    records.marker(Stage.PREPARE_DATA)
    records.endings(Stage.PREPARE_DATA)
    for kind in (Claim, Ending):
        if kind.__name__.lower() in key:
            records.read(key, kind)


def test_an_entry_of_a_ledger_is_read_or_refused(examples: int, tmp_path: Path) -> None:
    store, key = recorded(VERSIONS[-1], tmp_path / "store"), "privacy/birds/00000001.json"
    honest = json.loads(store.read(key))

    def check(broken: Any) -> None:
        store.write(key, json.dumps(broken).encode())
        try:
            DatasetLedger(store, "birds").read()
        except NSSTrainError as error:
            assert isinstance(error, InfrastructureError)

    fuzz.run(check, fuzz.changed(honest) | fuzz.values, examples=examples)


def test_a_worker_lives_through_every_line(target: Target, examples: int) -> None:
    before = target.stored()
    redis = target.app.redis

    def check(lines: list[bytes]) -> None:
        for line in lines:
            target.push(line)
        assert target.does_honest_work()

    count = max(2, examples // BATCH)
    fuzz.run(check, st.lists(fuzz.envelopes(), min_size=BATCH, max_size=BATCH), examples=count)
    assert redis.llen(target.settings.queue_cpu) == 0
    assert redis.llen(target.settings.queue_cuda) == 0
    made = own_keys(target.stored() - before)
    assert all(key.endswith(("request.json", "outcome.json")) or key.startswith("open/") for key in made), (
        made
    )
    assert "Unrecoverable error" not in target.log
