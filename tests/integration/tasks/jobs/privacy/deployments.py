"""One worker and one private job on a store."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from redis import Redis

from nss_train.config import parse_config
from nss_train.contract import Stage
from nss_train.privacy.accounting.ledger import Settlement
from nss_train.privacy.accounting.plan import PrivacyPlan
from tasks.execution.delivery import Worker, run_stage
from tasks.jobs.documents import JobRequest, StageMessage
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import JobRepository
from tasks.jobs.table import describe_table, upload_table
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.integration.tasks import drawing_stages
from tests.integration.tasks.private_stages import RESULT

JOB = "job-0001"


PLAN = PrivacyPlan.model_validate(drawing_stages.PLAN)


class Deployment:
    """One worker and one job on a store."""

    def __init__(self, store: LocalStore, settings: Settings, redis: Redis, tmp_path: Path) -> None:
        self.records = JobRepository(store, JOB)
        self._tables = tmp_path
        self._worker = Worker(
            name="test",
            store=store,
            redis=redis,
            settings=settings,
            send_event=lambda *_args, **_fields: None,
        )

    def submit(self, behaviour: str = "trains", *, private: bool = True) -> None:
        table = self._tables / "table.csv"
        table.write_text("a,b\n1,2\n")
        described = describe_table(table, strict=private)
        upload_table(table, self.records, str(described.input))
        request = JobRequest(
            job_id=JOB,
            table=described,
            config=parse_config({"privacy": {"dp_enabled": private}, "guarantee": {"dataset": behaviour}}),
            seed=1,
            submitted_at=datetime.now(UTC),
        )
        assert self.records.submitted(request)

    def run(self, *stages: Stage) -> None:
        for stage in stages:
            run_stage(StageMessage(job_id=JOB, stage=stage), worker=self._worker)


def settlement(ledger: DatasetLedger) -> Settlement:
    found = ledger.read().settlement(JOB)
    assert found is not None
    return found


def charged(records: JobRepository) -> object:
    marker = records.marker(Stage.TRAIN)
    assert marker is not None
    (key,) = [file.key for file in marker.files if file.path == RESULT]
    return json.loads(records.store.read(key))["charged_steps"]


def wait_until(happened: Callable[[], bool], deadline_s: float = 60) -> bool:
    deadline = time.monotonic() + deadline_s
    while not happened() and time.monotonic() < deadline:
        time.sleep(0.02)
    return happened()
