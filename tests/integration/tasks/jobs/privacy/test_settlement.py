"""A private job is settled once more when it ends, however it ends."""

from __future__ import annotations

import threading
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis import Redis

from nss_train.contract import Stage
from tasks.app import make_app
from tasks.client import Client
from tasks.execution.delivery import JobEnded, Superseded
from tasks.jobs.documents import CancelRequest, Outcome, StageCommit
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import JobRepository
from tasks.scheduling.reconciliation import reconcile
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.integration.tasks.jobs.privacy.deployments import JOB, PLAN, Deployment, settlement, wait_until
from tests.integration.tasks.private_stages import LOST, STEPS

pytestmark = pytest.mark.usefixtures("private_stages")


def test_a_job_cancelled_while_it_trains_is_charged_the_steps_it_took(
    deployment: Deployment, ledger: DatasetLedger
) -> None:
    deployment.submit("waits")
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    records = deployment.records
    cancel = CancelRequest(reason="enough", requested_by="test", requested_at=datetime.now(UTC))
    asking = threading.Thread(
        target=lambda: wait_until(lambda: records.charges.taken() == LOST) and records.request_cancel(cancel)
    )
    asking.start()
    with pytest.raises(JobEnded):
        deployment.run(Stage.TRAIN)
    asking.join()
    found = settlement(ledger)
    assert (found.outcome, found.steps, found.by_products) == ("cancelled", LOST, True)


def test_a_job_cancelled_by_the_client_while_nobody_worked_on_it_is_settled_by_reconcile(
    deployment: Deployment, ledger: DatasetLedger, settings: Settings
) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA)
    Client(settings).cancel(JOB, reason="enough", requested_by="test")
    assert ledger.read().settlement(JOB) is None
    for _ in range(2):
        reconcile(make_app(settings), after_s=0)
    found = settlement(ledger)
    assert (found.outcome, found.steps, found.by_products) == ("cancelled", 0, True)
    assert len(ledger.read().entries) == 3  # the price of the draw, the plan, the settlement


def test_a_worker_that_died_before_it_tidied_up_is_made_up_for(
    deployment: Deployment, ledger: DatasetLedger, settings: Settings
) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL, Stage.TRAIN)
    deployment.records.finish(Outcome.SUCCEEDED)
    reconcile(make_app(settings), after_s=0)
    assert (settlement(ledger).outcome, settlement(ledger).steps) == ("succeeded", STEPS)


def test_by_products_that_nobody_committed_cost_nothing(store: LocalStore, ledger: DatasetLedger) -> None:
    records = JobRepository(store, JOB)
    records.charges.reserve(PLAN.model_dump(mode="json"))
    records.finish(Outcome.FAILED)
    records.tidy()
    assert (settlement(ledger).steps, settlement(ledger).by_products) == (0, False)
    assert ledger.read().epsilon() == 0


def test_a_reservation_made_after_the_job_had_ended_is_given_back(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    class TwinStore(LocalStore):
        """A store in which another worker ends the job and tidies up just before the reservation is put."""

        def put_if_absent(self, key: str, data: bytes) -> bool:
            if key.startswith("privacy/") and JobRepository(self, JOB).outcome() is None:
                JobRepository(self, JOB).finish(Outcome.FAILED)
                JobRepository(self, JOB).tidy()
            return super().put_if_absent(key, data)

    store = TwinStore(settings.home / "store")
    deployment = Deployment(store, settings, redis, tmp_path)
    deployment.submit()
    with pytest.raises(Superseded):
        deployment.run(Stage.PREPARE_DATA)
    assert deployment.records.marker(Stage.PREPARE_DATA) is None
    assert settlement(DatasetLedger(store, PLAN.dataset)).steps == 0


def test_what_an_older_release_committed_was_drawn(store: LocalStore, ledger: DatasetLedger) -> None:
    """An older release kept no draw; a commit of this release without one released nothing."""
    for job_id, version, released in (("job-0001", 3, True), ("job-0002", 4, False)):
        records = JobRepository(store, job_id)
        records.charges.reserve(PLAN.model_dump(mode="json"))
        now = datetime.now(UTC)
        marker = StageCommit(
            version=version,
            stage=Stage.PREPARE_DATA,
            attempt=1,
            input_digest="",
            started_at=now,
            finished_at=now,
            files=(),
        )
        assert records.commit(marker)
        records.finish(Outcome.FAILED)
        records.tidy()
        found = ledger.read().settlement(job_id)
        assert found is not None
        assert found.by_products is released


def test_a_broken_ledger_keeps_no_other_job_waiting(
    deployment: Deployment, store: LocalStore, settings: Settings
) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA)
    deployment.records.finish(Outcome.CANCELLED)
    store.write(f"privacy/{PLAN.dataset}/00000001.json", b"{")
    other = JobRepository(store, "job-0002")
    other.submitted(deployment.records.request().model_copy(update={"job_id": "job-0002"}))
    assert reconcile(make_app(settings), after_s=0) == ["job-0002"]
