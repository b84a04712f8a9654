"""A private training whose worker is killed: its steps are spent, although nothing else is left of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import Stage
from nss_train.privacy.accounting.plan import PrivacyPlan
from tasks.jobs.documents import JobState
from tests.chaos.cluster import wait_until
from tests.chaos.jobs import WAIT_S, Jobs
from tests.unit.training.conftest import read

PRIVATE: dict[str, Any] = {
    "data": {"holdout": 0, "random_state": 1},
    "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
    "guarantee": {"schema_source": "declared", "dataset": "birds"},
}


@pytest.mark.long
def test_lost_steps_of_a_killed_training_are_spent(jobs: Jobs, tmp_path: Path) -> None:
    job_id = jobs.submit(steps=20, sections=PRIVATE)
    # No event reports single steps; the record in the store does.
    assert wait_until(lambda: charge_keys(jobs, job_id) != [], WAIT_S)
    host = jobs.wait_for_stage(job_id, Stage.TRAIN)
    host.kill()
    host.start()
    end = jobs.end(job_id)
    assert end.status.state is JobState.SUCCEEDED, end.status.error
    document = read(jobs.client.fetch(job_id, tmp_path / "out") / "train" / "privacy.json")
    plan, result = PrivacyPlan.model_validate(document["plan"]), document["result"]
    records = [read_steps(jobs, key) for key in charge_keys(jobs, job_id)]
    assert len(records) == 2
    assert result["steps_applied"] == sum(records)
    assert result["epsilon_spent"] == plan.spent(sum(records)) <= plan.epsilon
    # Settled after the outcome, when the job is tidied up.
    assert jobs.wait_until_quiet(40)
    (settled,) = [entry for entry in jobs.client.ledger("birds").read().entries if entry.kind == "settlement"]
    assert settled.steps == sum(records)
    assert jobs.violations({job_id: ""}) == []


def charge_keys(jobs: Jobs, job_id: str) -> list[str]:
    return [key for key in jobs.audit().objects if key.startswith(f"jobs/{job_id}/private/charges/")]


def read_steps(jobs: Jobs, key: str) -> int:
    import json

    data = jobs.audit()._read(key)
    assert data is not None
    return int(json.loads(data)["steps"])
