"""``nss-train audit`` of this installation, and of a job."""

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
from nss_train.privacy.accounting.result import AuditBound, PrivacyResult
from nss_train.privacy.audit import __main__ as program
from nss_train.privacy.audit.neighbours import own_table as own_table_audit
from nss_train.privacy.audit.neighbours.invented import cheap_plans, write_model
from nss_train.privacy.audit.neighbours.planted.faults import FAULTS
from tasks.jobs.documents import JobRequest, StageCommit
from tasks.jobs.gate import OPEN
from tasks.jobs.repository import JobRepository
from tasks.jobs.stage_files import upload
from tasks.jobs.table import describe_table, upload_table
from tasks.settings import Settings, worker_environment
from tasks.store.open import open_store

JOB = "job-0001"
BOUND = AuditBound(
    epsilon_lower_bound=2.75, confidence=0.95, canaries=1000, guesses=100, correct=96, steps=98
)


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return settings whose broker is never contacted."""
    return Settings.model_validate({"home": tmp_path / "home", "broker_url": "redis://127.0.0.1:9/0"})


@pytest.fixture
def records(settings: Settings, tmp_path: Path) -> JobRepository:
    """Return the records of a submitted job."""
    found = JobRepository(open_store(settings), JOB)
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


def train(records: JobRepository, out: Path, result: PrivacyResult | None) -> None:
    """Commit a train stage that left this result."""
    out.mkdir()
    if result is not None:
        (out / "privacy_result.json").write_text(result.model_dump_json())
    now = datetime.now(UTC)
    marker = StageCommit(
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
    settings: Settings, records: JobRepository, tmp_path: Path
) -> None:
    train(records, tmp_path / "out", private(BOUND))
    text = nss_train(settings, JOB).stdout
    assert "ε = 7.9000 at δ = 1e-05" in text
    assert "ε ≥ 2.7500 with 95% confidence: 96 of 100 guesses about 1000 canaries" in text
    found: dict[str, Any] = json.loads(nss_train(settings, JOB, "--json").stdout)
    assert found["epsilon_spent"] == 7.9
    assert found["audit"] == BOUND.model_dump(mode="json")


def test_a_weak_audit_is_said_to_be_weak(settings: Settings, records: JobRepository, tmp_path: Path) -> None:
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
    result: PrivacyResult | None, says: str, settings: Settings, records: JobRepository, tmp_path: Path
) -> None:
    train(records, tmp_path / "out", result)
    done = nss_train(settings, JOB)
    assert done.returncode == 2
    assert says in done.stderr


def test_a_job_that_has_not_trained_is_refused(settings: Settings, records: JobRepository) -> None:
    done = nss_train(settings, JOB)
    assert done.returncode == 2
    assert "it has not trained yet" in done.stderr


def test_an_unknown_job_is_refused(settings: Settings) -> None:
    done = nss_train(settings, "job-0002")
    assert done.returncode == 2
    assert "Unknown job" in done.stderr


@pytest.mark.long  # tests/unit/privacy audits the same step
def test_the_step_of_this_installation_keeps_its_claim(settings: Settings) -> None:
    done = nss_train(settings, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0
    assert found["holds"]
    assert 0.5 <= found["epsilon_lower_bound"] <= found["epsilon"] <= 1.0


JOB_YAML = """
training: {pretrained_model: SmolLM2-invented, num_input_records_to_sample: 60}
privacy: {dp_enabled: true, epsilon: 8.0}
guarantee: {units: 30, schema_source: declared}
data: {holdout: 0}
preflight: {disabled_checks: [dataset.size]}
"""


@pytest.fixture
def own_table(settings: Settings, tmp_path: Path) -> tuple[str, ...]:
    """Return options that name a table and its job."""
    write_model(settings.models_dir)
    table, config = tmp_path / "own.csv", tmp_path / "job.yaml"
    table.write_text("name,age\n" + "".join(f"bird {row % 7},{20 + row}\n" for row in range(30)))
    config.write_text(JOB_YAML)
    return "--from-file", str(table), "--config", str(config), "--pairs", "6"


def test_neighbours_of_ones_own_table_cannot_be_told_apart(
    settings: Settings, own_table: tuple[str, ...]
) -> None:
    done = nss_train(settings, *own_table, "--json")
    found = json.loads(done.stdout)
    assert done.returncode == 0, found
    assert found["pairs"] == sum(found["edits"].values()) == 6
    assert found["refused"] == 0
    assert found["differences"] == []


def test_a_table_that_is_not_there_is_refused(settings: Settings, tmp_path: Path) -> None:
    config = tmp_path / "job.yaml"
    config.write_text(JOB_YAML)
    done = nss_train(settings, "--from-file", str(tmp_path / "none.csv"), "--config", str(config))
    assert done.returncode == 2
    assert "no such file" in done.stderr


def test_neighbours_that_can_be_told_apart_end_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    root, table, config = tmp_path / "models", tmp_path / "own.csv", tmp_path / "job.yaml"
    write_model(root)
    table.write_text("name,age\n" + "".join(f"bird {row % 7},{20 + row}\n" for row in range(30)))
    config.write_text(JOB_YAML)
    options = ["--from-file", str(table), "--config", str(config), "--models", str(root), "--pairs", "4"]
    monkeypatch.setattr("sys.argv", ["audit", *options])
    monkeypatch.setattr(own_table_audit, "remembered_plans", cheap_plans)
    with FAULTS["digest as a name"].plant():
        assert program.main() == 1
    said = capsys.readouterr().out
    assert "digests: sha256 of in/table.csv" in said
    assert "they can be told apart" in said
