"""Warnings about how a table was read reach everyone who looks at a job."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from nss_train.contract import Stage
from nss_train.data.outputs import MOST_WARNINGS, first_warnings
from nss_train.privacy.observables import Kind, published
from tasks.cli import display
from tasks.execution.summary import summary
from tasks.jobs.documents import WARNINGS, Outcome, StageMessage
from tasks.jobs.repository import JobRepository
from tasks.status import read_status
from tasks.store.local import LocalStore
from tasks.webhooks import delivery

RECORDED = Path(__file__).parents[3] / "upgrades" / "v5" / "store"
JOB = "20260101-000000-abcdef01"
TOLD = "zip: leading zeros lost in 3 cells."


@pytest.fixture
def records(tmp_path: Path) -> JobRepository:
    """Return a job whose table was prepared with a warning, and that has not ended."""
    store = LocalStore(shutil.copytree(RECORDED, tmp_path / "store"))
    found = JobRepository(store, JOB)
    marker = found.marker(Stage.PREPARE_DATA)
    assert marker is not None
    warned = marker.model_copy(update={"figures": {"rows": 3, WARNINGS: [TOLD]}})
    store.delete(found.keys.outcome)
    store.write(found.keys.marker(Stage.PREPARE_DATA), warned.model_dump_json().encode())
    return found


def test_a_warning_is_in_the_status_before_the_job_ends(records: JobRepository) -> None:
    assert read_status(records).warnings == (TOLD,)


def test_a_warning_is_in_the_outcome_and_in_the_webhook_s_body(records: JobRepository) -> None:
    records.finish(Outcome.SUCCEEDED, stage=Stage.SAVE_MODEL)
    outcome = records.outcome()
    assert outcome is not None
    assert outcome.warnings == (TOLD,)
    body = json.loads(delivery.of_outcome(outcome, JOB).body())
    assert body["data"]["warnings"] == [TOLD]


def test_a_warning_is_in_the_task_s_result_which_flower_shows(records: JobRepository) -> None:
    for stage in Stage:
        found = summary(StageMessage(job_id=JOB, stage=stage), records)
        assert (found["warnings"], found["told"]) == (1, [TOLD])
    assert found["artifacts"] == f"nss-train fetch {JOB} FOLDER"


def test_watching_shows_a_warning_once(records: JobRepository, capsys: pytest.CaptureFixture[str]) -> None:
    display.watch([read_status(records)] * 3)
    assert capsys.readouterr().err.count(TOLD) == 1


def test_the_status_shows_a_warning(records: JobRepository, capsys: pytest.CaptureFixture[str]) -> None:
    display.show_status(read_status(records), as_json=False)
    assert f"warning: {TOLD}" in capsys.readouterr().err


def test_a_strictly_private_job_s_gate_lets_no_warning_pass() -> None:
    found = published(Kind.FIGURES, Stage.PREPARE_DATA, {WARNINGS: [TOLD], "columns": 1})
    assert found is not None
    assert found.fields == {"columns": 1}


def test_of_very_many_warnings_the_first_are_told_and_the_rest_counted() -> None:
    found = first_warnings([f"c{number}: changed" for number in range(MOST_WARNINGS + 7)])
    assert len(found) == MOST_WARNINGS + 1
    assert found[-1].startswith("and 7 more")
