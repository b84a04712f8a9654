"""A private job pays for each step before it is taken."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from redis import Redis

from nss_train.contract import CHARGE, CHARGED, Stage
from nss_train.errors import BudgetExceeded, StoreUnavailable
from nss_train.training.checkpoint import write_manifest
from tasks.execution.checkpoints import CheckpointStore, Kept
from tasks.execution.delivery import JobEnded, Superseded, TryLater
from tasks.execution.progress import stream_key
from tasks.jobs.documents import Outcome
from tasks.jobs.privacy.charges import Charges
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.repository import JobRepository
from tasks.settings import Settings
from tasks.store.local import LocalStore
from tests.integration.tasks.jobs.privacy.deployments import JOB, PLAN, Deployment, charged, settlement
from tests.integration.tasks.private_stages import LOST, STEPS

pytestmark = pytest.mark.usefixtures("private_stages")


def test_a_job_reserves_its_plan_and_is_charged_what_it_ran(
    deployment: Deployment, ledger: DatasetLedger
) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA)
    (cost,) = ledger.read().costs
    assert (cost.plan, cost.settled) == (PLAN, False)
    deployment.run(Stage.LOAD_MODEL, Stage.TRAIN, Stage.SAVE_MODEL)
    found = settlement(ledger)
    assert (found.outcome, found.steps, found.by_products) == ("succeeded", STEPS, True)
    assert charged(deployment.records) == 0
    deployment.records.tidy()
    assert len(ledger.read().entries) == 3  # the price of the draw, the plan, the settlement


def lose_a_training(deployment: Deployment) -> None:
    """Submit a job whose first train attempt is killed, and take it that far."""
    deployment.submit("killed")
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    with pytest.raises(TryLater):
        deployment.run(Stage.TRAIN)


def test_steps_of_an_attempt_that_was_killed_are_charged_too(
    deployment: Deployment, ledger: DatasetLedger
) -> None:
    lose_a_training(deployment)
    assert deployment.records.charges.taken() == LOST
    deployment.run(Stage.TRAIN, Stage.SAVE_MODEL)
    assert charged(deployment.records) == LOST
    assert settlement(ledger).steps == LOST + STEPS


def test_where_an_attempt_begins_is_told_by_the_attempt_that_came_so_far(
    deployment: Deployment, tmp_path: Path
) -> None:
    """The step would tell how many were taken until that attempt was stopped."""
    lose_a_training(deployment)
    records, kept = deployment.records, tmp_path / "kept"
    kept.mkdir()
    (kept / "optimizer.pt").write_text("state")
    write_manifest(kept, 57)
    CheckpointStore(records.store, records.keys, private=True).upload(kept, Kept(57, 1))
    deployment.run(Stage.TRAIN)
    assert [claim.position for claim in records.claims(Stage.TRAIN)] == [0, 1]


def test_steps_are_paid_for_where_only_workers_see_when(deployment: Deployment, store: LocalStore) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    keys, written = deployment.records.keys, []
    write = LocalStore.write
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(LocalStore, "write", lambda *given: written.append(given[1]) or write(*given))
        deployment.run(Stage.TRAIN)
    charges = [key for key in written if key.startswith((keys.charges, keys.old_charges))]
    assert charges == [keys.old_charge(1), *[keys.charge(1)] * STEPS]
    assert keys.charges.startswith(keys.private)


def test_a_step_is_on_record_before_it_is_allowed_however_long_the_store_is_away(
    settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    class AwayStore(LocalStore):
        """A store that refuses the first two records of a step, which must not be allowed meanwhile."""

        refused, early = 0, False

        def write(self, key: str, data: bytes) -> None:
            if key.startswith(f"jobs/{JOB}/private/charges/"):
                steps = json.loads(data)["steps"]
                told = [int(file.read_text()) for file in settings.scratch_dir.rglob(CHARGED)]
                AwayStore.early |= any(number >= steps for number in told)
                if steps == 2 and AwayStore.refused < 2:
                    AwayStore.refused += 1
                    raise StoreUnavailable("away")
            super().write(key, data)

    store = AwayStore(settings.home / "store")
    deployment = Deployment(store, settings, redis, tmp_path)
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL, Stage.TRAIN)
    assert (AwayStore.refused, AwayStore.early) == (2, False)
    assert deployment.records.attempts(Stage.TRAIN) == [1]
    assert deployment.records.charges.taken() == STEPS


def test_charges_are_no_progress(deployment: Deployment, redis: Redis) -> None:
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL, Stage.TRAIN)
    actions = [json.loads(fields[b"event"])["action"] for _, fields in redis.xrange(stream_key(JOB))]
    assert actions.count("train.step") == STEPS
    assert CHARGE not in actions


def test_a_job_that_is_not_private_has_no_charges(deployment: Deployment, store: LocalStore) -> None:
    deployment.submit(private=False)
    deployment.run(*Stage)
    assert charged(deployment.records) is None
    assert list(store.list("privacy/")) == []


def test_a_job_that_an_older_release_began_is_ended(deployment: Deployment, store: LocalStore) -> None:
    deployment.submit(private=False)
    move_the_table(deployment.records)
    deployment.run(Stage.PREPARE_DATA)
    merge_what_is_private(deployment.records)
    assert not list(store.list(deployment.records.keys.private))
    deployment.run(Stage.LOAD_MODEL, Stage.TRAIN, Stage.SAVE_MODEL)
    outcome = deployment.records.outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.SUCCEEDED


def move_the_table(records: JobRepository) -> None:
    """Move the table to where releases 1 to 3 had it: under its digest, which the request names."""
    request, file = records.request(), records.table_file(records.request())
    assert file is not None
    records.store.write(records.keys.old_table(file.sha256), records.store.read(file.key))
    records.drop_table(str(request.table.input))
    table = {"name": file.name, "sha256": file.sha256, "bytes": file.bytes}
    document = json.loads(request.model_dump_json()) | {"version": 3, "table": table}
    records.store.write(records.keys.request, json.dumps(document).encode())


def merge_what_is_private(records: JobRepository) -> None:
    """Merge the private part as releases 1 to 3 did: every file in the marker."""
    marker = records.marker(Stage.PREPARE_DATA)
    assert marker is not None
    files = [
        file.model_dump() | {"key": file.key.replace("/private/", "/")}
        for file in records.committed(marker).files
    ]
    for key in list(records.store.list(records.keys.private)):
        records.store.write(key.replace("/private/", "/"), records.store.read(key))
        records.store.delete(key)
    document = json.loads(marker.model_dump_json()) | {"version": 3, "files": files, "input_digest": "d"}
    records.store.write(records.keys.marker(Stage.PREPARE_DATA), json.dumps(document).encode())


def test_a_job_over_the_budget_ends_before_anything_expensive(
    deployment: Deployment, ledger: DatasetLedger, store: LocalStore
) -> None:
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r"}
    limits = {"epsilon": 0.05, "delta": 1e-6}
    store.write(f"privacy/{PLAN.dataset}/00000001.json", json.dumps(older | limits).encode())
    deployment.submit()
    with pytest.raises(BudgetExceeded):
        deployment.run(Stage.PREPARE_DATA)
    outcome = deployment.records.outcome()
    assert outcome is not None
    assert outcome.outcome is Outcome.FAILED
    assert outcome.error is not None
    assert outcome.error["type"] == "BudgetExceeded"
    assert deployment.records.marker(Stage.PREPARE_DATA) is None
    assert ledger.read().costs == ()
    with pytest.raises(JobEnded):
        deployment.run(Stage.LOAD_MODEL)


@pytest.mark.parametrize("is_written", [False, True])
@pytest.mark.parametrize("by", ["the end of the job", "another worker"])
def test_no_step_is_taken_that_nobody_counted(
    by: str, is_written: bool, settings: Settings, redis: Redis, tmp_path: Path
) -> None:
    """The job ends, or another worker takes the stage over, while a charge is on its way to the store."""

    class RacingStore(LocalStore):
        counted = -1

        def write(self, key: str, data: bytes) -> None:
            is_third = key.startswith(f"jobs/{JOB}/private/charges/") and json.loads(data)["steps"] == LOST
            if is_written or not is_third:
                super().write(key, data)
            if is_third:
                RacingStore.counted = self.take_over()
            if is_third and not is_written:
                super().write(key, data)

        def take_over(self) -> int:
            records = JobRepository(self, JOB)
            if by == "another worker":
                number = records.claim(Stage.TRAIN, worker="twin", max_attempts=3)
                return records.charges.taken(except_by=number)
            records.finish(Outcome.CANCELLED)
            records.tidy()
            return settlement(DatasetLedger(self, PLAN.dataset)).steps

    store = RacingStore(settings.home / "store")
    deployment = Deployment(store, settings, redis, tmp_path)
    deployment.submit()
    deployment.run(Stage.PREPARE_DATA, Stage.LOAD_MODEL)
    with pytest.raises(Superseded):
        deployment.run(Stage.TRAIN)
    assert RacingStore.counted == (LOST if is_written else LOST - 1)
    assert steps_taken(redis) == LOST - 1


def steps_taken(redis: Redis) -> int:
    events = (json.loads(fields[b"event"]) for _, fields in redis.xrange(stream_key(JOB)))
    return max((event["fields"]["step"] for event in events if event["action"] == "train.step"), default=0)


def test_the_record_of_an_attempt_is_replaced_by_a_later_one(store: LocalStore) -> None:
    charges = Charges(store, JOB)
    for attempt, steps in ((1, 1), (1, 2), (2, 5)):
        charges.record(attempt, steps)
    assert charges.taken() == 7
    assert charges.taken(except_by=2) == 2
