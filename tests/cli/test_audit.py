"""``nss-train audit``: of this installation, and of a job."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.privacy.result import AuditBound, PrivacyResult
from tasks.files import upload
from tasks.gate import OPEN
from tasks.job import JobRequest, Marker
from tasks.records import JobRecords
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store
from tasks.table import describe_table, upload_table

JOB = "job-0001"
BOUND = AuditBound(
    epsilon_lower_bound=2.75, confidence=0.95, canaries=1000, guesses=100, correct=96, steps=98
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """A deployment whose broker nobody asks."""
    return Settings.model_validate({"home": tmp_path / "home", "broker_url": "redis://127.0.0.1:9/0"})


@pytest.fixture
def records(settings: Settings, tmp_path: Path) -> JobRecords:
    """A job that was submitted."""
    found = JobRecords(open_store(settings), JOB)
    table = tmp_path / "table.csv"
    table.write_text("a,b\n1,2\n")
    described = describe_table(table, strict=False)
    upload_table(table, found, str(described.input))
    request = JobRequest(
        job_id=JOB,
        table=described,
        config=parse_config({}),
        seed=1,
        submitted_at=datetime.now(UTC),
    )
    assert found.submitted(request)
    return found


def train(records: JobRecords, out: Path, result: PrivacyResult | None) -> None:
    """Commit a train stage that left this."""
    out.mkdir()
    if result is not None:
        (out / "privacy_result.json").write_text(result.model_dump_json())
    now = datetime.now(UTC)
    marker = Marker(
        stage=Stage.TRAIN,
        attempt=1,
        started_at=now,
        finished_at=now,
        files=upload(records.store, records.keys, Stage.TRAIN, 1, out, gate=OPEN).published,
    )
    assert records.commit(marker)


def private(audit: AuditBound | None) -> PrivacyResult:
    return PrivacyResult(steps_applied=98, epsilon_spent=7.9, delta=1e-5, audit=audit)


def nss_train(settings: Settings, *command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "tasks.cli", "audit", *command],
        env=worker_environment(settings) | {"COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )


def test_the_bound_of_a_job_is_shown_beside_its_claim(
    settings: Settings, records: JobRecords, tmp_path: Path
) -> None:
    train(records, tmp_path / "out", private(BOUND))
    text = nss_train(settings, JOB).stdout
    assert "ε = 7.9000 at δ = 1e-05" in text
    assert "ε ≥ 2.7500 with 95% confidence: 96 of 100 guesses about 1000 canaries" in text
    found: dict[str, Any] = json.loads(nss_train(settings, JOB, "--json").stdout)
    assert found["epsilon_spent"] == 7.9
    assert found["audit"] == BOUND.model_dump(mode="json")


def test_a_weak_audit_is_said_to_be_weak(settings: Settings, records: JobRecords, tmp_path: Path) -> None:
    weak = BOUND.model_copy(update={"weak_because": "9 canaries are few"})
    train(records, tmp_path / "out", private(weak))
    assert "weak: 9 canaries are few" in nss_train(settings, JOB).stdout


@pytest.mark.parametrize(
    ("result", "says"),
    [
        (private(None), "guarantee.audit_canaries = 0"),
        (None, "it trains without differential privacy"),
    ],
)
def test_a_job_without_an_audit_is_refused(
    result: PrivacyResult | None, says: str, settings: Settings, records: JobRecords, tmp_path: Path
) -> None:
    train(records, tmp_path / "out", result)
    done = nss_train(settings, JOB)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_job_that_has_not_trained_is_refused(settings: Settings, records: JobRecords) -> None:
    done = nss_train(settings, JOB)
    assert done.returncode == 2
    assert "it has not trained yet" in done.stderr


def test_an_unknown_job_is_refused(settings: Settings) -> None:
    done = nss_train(settings, "job-0002")
    assert done.returncode == 2
    assert "Unknown job" in done.stderr


def test_the_step_of_this_installation_keeps_its_claim(settings: Settings) -> None:
    done = nss_train(settings, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["holds"]
    assert 0.5 <= found["epsilon_lower_bound"] <= found["epsilon"] <= 1.0
