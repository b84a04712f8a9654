"""The ledger in a store: one suite for the folder and for a real S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.errors import BudgetExceeded, InfrastructureError, ParameterError, StoreUnavailable
from nss_train.privacy.accounting.dataset_budget import Budget, Composition
from nss_train.privacy.accounting.ledger import Reservation, Settlement
from tasks.jobs.documents import JobRequest, Outcome, Table
from tasks.jobs.privacy.datasets import prove, read_binding
from tasks.jobs.privacy.ledger import DatasetLedger, Granted
from tasks.jobs.privacy.renaming import rename
from tasks.settings import Settings
from tasks.store.base import Store
from tasks.store.local import LocalStore
from tasks.store.open import open_bucket, open_store
from tests.unit.privacy.plans import plan, schema

JOBS = 8


@pytest.fixture(params=["local", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "local":
        return open_store(Settings.model_validate({"home": tmp_path}))
    settings: Settings = request.getfixturevalue("s3_settings")
    bucket = settings.effective_store_url.removeprefix("s3://")
    return open_bucket(settings, bucket, prefix=f"ledger/{tmp_path.name}")


@pytest.fixture
def ledger(store: Store) -> DatasetLedger:
    return DatasetLedger(store, "birds")


def set_budget(
    ledger: DatasetLedger, epsilon: float, *, reason: str = "a test", owner: str = "aviary"
) -> Granted:
    return ledger.set_budget(
        epsilon=epsilon, delta=1e-6, by="the board", reason=reason, unit="record", owner=owner
    )


def anybodys(store: Store, epsilon: float) -> DatasetLedger:
    """Write a budget as older releases did: without an owner, and composed as if all were fixed."""
    older = {"kind": "budget", "at": "2026-01-01T00:00:00Z", "by": "b", "reason": "r", "delta": 1e-6}
    store.write("privacy/birds/00000001.json", json.dumps(older | {"epsilon": epsilon}).encode())
    return DatasetLedger(store, "birds")


def asking(token: str | None, *, tenant: str = "aviary", job_id: str = "job-0001") -> JobRequest:
    """Return a job on the birds, by a tenant that holds a token."""
    return JobRequest(
        job_id=job_id,
        table=Table(name="t.csv"),
        config=parse_config({"privacy": {"dp_enabled": True}, "guarantee": {"dataset": "birds"}}),
        tenant=tenant,
        seed=1,
        submitted_at=datetime.now(UTC),
        dataset_proof=None if token is None else prove(token, job_id),
    )


def test_the_life_of_a_dataset_is_read_back(ledger: DatasetLedger, store: Store) -> None:
    assert ledger.read().entries == ()
    granted = set_budget(ledger, 8)
    ledger.reserve("job-0001", plan(), request=asking(granted.token))
    ledger.settle("job-0001", outcome=Outcome.CANCELLED, steps=7, by_products=False)
    found = DatasetLedger(store, "birds").read()
    assert found.budget == granted.budget
    reservation, settlement = found.reservation("job-0001"), found.settlement("job-0001")
    assert reservation is not None
    assert reservation.plan == plan()
    assert settlement is not None
    assert (settlement.outcome, settlement.steps, settlement.by_products) == ("cancelled", 7, False)
    kept = [f"privacy/birds/0000000{n}.json" for n in (1, 2, 3)]
    assert list(store.list("privacy/")) == [*kept, "privacy/birds/private/binding.json"]


def test_the_same_again_changes_nothing(ledger: DatasetLedger) -> None:
    token = set_budget(ledger, 8).token
    for _ in range(2):
        assert set_budget(ledger, 8).token is None
        ledger.reserve("job-0001", plan(), request=asking(token))
    for steps in (7, 8):
        ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=steps, by_products=True)
    ledger.reserve("job-0001", plan(steps=9))
    kinds = [entry.kind for entry in ledger.read().entries]
    assert kinds == ["budget", "reservation", "settlement"]
    assert ledger.read().costs[0].steps == 7


def test_another_plan_of_the_same_job_takes_the_place_of_the_first(ledger: DatasetLedger) -> None:
    ledger.reserve("job-0001", plan())
    ledger.reserve("job-0001", plan(steps=9))
    assert [cost.plan.steps for cost in ledger.read().costs] == [9]


def test_a_job_that_reserved_nothing_is_not_settled(ledger: DatasetLedger) -> None:
    ledger.settle("job-0001", outcome=Outcome.FAILED, steps=0, by_products=False)
    assert ledger.read().entries == ()


def test_a_job_over_the_budget_leaves_no_entry(ledger: DatasetLedger) -> None:
    token = set_budget(ledger, 1).token
    with pytest.raises(BudgetExceeded, match="dataset birds"):
        ledger.reserve("job-0001", plan(), request=asking(token))
    assert [entry.kind for entry in ledger.read().entries] == ["budget"]


def test_datasets_do_not_share_a_budget(ledger: DatasetLedger, store: Store) -> None:
    set_budget(ledger, 1)
    DatasetLedger(store, "birds-2").reserve("job-0001", plan(dataset="birds-2"))
    assert len(ledger.read().entries) == 1


def test_of_eight_jobs_at_once_three_are_let_in_by_a_budget_for_three(
    store: Store,
) -> None:
    for_three = plan().spent(30) + 1e-3
    ledger = anybodys(store, for_three)

    def reserve(number: int) -> bool:
        try:
            DatasetLedger(store, "birds").reserve(f"job-000{number}", plan(steps=10))
        except BudgetExceeded:
            return False
        return True

    with ThreadPoolExecutor(JOBS) as pool:
        assert list(pool.map(reserve, range(JOBS))).count(True) == 3
    found = ledger.read()
    assert len(found.costs) == 3
    assert found.epsilon() <= for_three


class FaultyStore(LocalStore):
    """A store that loses the answer to the first conditional write of each key."""

    def __init__(self, root: Path, *, is_done: bool) -> None:
        super().__init__(root)
        self._is_done = is_done
        self._asked: set[str] = set()

    def put_if_absent(self, key: str, data: bytes) -> bool:
        if key in self._asked:
            return super().put_if_absent(key, data)
        self._asked.add(key)
        if self._is_done:
            super().put_if_absent(key, data)
        raise StoreUnavailable("connection reset")


def anybodys_again(ledger: DatasetLedger, epsilon: float) -> Granted:
    return ledger.set_budget(epsilon=epsilon, delta=1e-6, by="the board", reason="a test")


@pytest.mark.parametrize("is_done", [True, False])
def test_an_answer_lost_on_the_way_appends_once(is_done: bool, tmp_path: Path) -> None:
    ledger = anybodys(FaultyStore(tmp_path, is_done=is_done), 7)
    steps = (
        lambda: anybodys_again(ledger, 8),
        lambda: ledger.reserve("job-0001", plan()),
        lambda: ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=True),
    )
    for step in steps:
        with pytest.raises(StoreUnavailable):
            step()
        step()
    assert [type(entry) for entry in ledger.read().entries] == [Budget, Budget, Reservation, Settlement]


def test_a_budget_for_another_reason_is_another_entry(ledger: DatasetLedger) -> None:
    set_budget(ledger, 8)
    set_budget(ledger, 8, reason="confirmed")
    assert len(ledger.read().entries) == 2


def test_a_ledger_with_a_hole_is_not_read(ledger: DatasetLedger, store: Store) -> None:
    for epsilon in (1, 2, 3):
        set_budget(ledger, epsilon)
    store.delete("privacy/birds/00000002.json")
    with pytest.raises(InfrastructureError, match="gaps"):
        ledger.reserve("job-0001", plan(), request=asking(None))


def test_an_entry_that_is_none_is_not_passed_over(ledger: DatasetLedger, store: Store) -> None:
    store.write("privacy/birds/00000001.json", b'{"kind": "gift", "epsilon": 100}')
    with pytest.raises(InfrastructureError, match="no entry"):
        ledger.read()


@pytest.mark.parametrize("dataset", ["../../etc", "a/b", "", "Birds", "x" * 64, "job/", "_deployment"])
def test_names_that_could_leave_the_store_are_refused(dataset: str, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="Not a dataset's name"):
        DatasetLedger(LocalStore(tmp_path), dataset)


def test_a_bad_budget_is_refused_with_every_reason(ledger: DatasetLedger) -> None:
    with pytest.raises(ParameterError) as caught:
        ledger.set_budget(epsilon=0, delta=2, by="me", reason="a test", unit="patients", owner="A B")
    assert [problem.field for problem in caught.value.problems] == ["epsilon", "delta", "owner", "unit"]
    with pytest.raises(ParameterError) as caught:
        ledger.set_budget(epsilon=1, delta=1e-6, by="me", reason="a test")
    assert [problem.field for problem in caught.value.problems] == ["owner", "unit"]
    with pytest.raises(ParameterError, match="no job at all would fit"):
        ledger.set_budget(epsilon=0.1, delta=1e-6, by="me", reason="", unit="record", owner="a")
    assert ledger.read().entries == ()


def test_whom_a_dataset_belongs_to_and_what_it_protects_stays(ledger: DatasetLedger) -> None:
    first = set_budget(ledger, 8)
    assert first.token is not None
    with pytest.raises(ParameterError) as caught:
        ledger.set_budget(epsilon=9, delta=1e-6, by="x", reason="", unit="value of nest", owner="thief")
    assert [problem.field for problem in caught.value.problems] == ["owner", "unit"]
    assert "fixed as 'aviary'" in caught.value.problems[0].remedy
    later = ledger.set_budget(epsilon=9, delta=1e-6, by="x", reason="")
    assert (later.budget.owner, later.budget.unit, later.token) == ("aviary", "record", None)
    assert (later.budget.orders, later.budget.composition) == (first.budget.orders, Composition.ADAPTIVE)


@pytest.mark.parametrize(
    ("stranger", "field"),
    [
        (lambda token: asking(token, tenant="thief"), "guarantee.dataset"),
        (lambda _token: asking(None), "dataset_token"),
        (lambda _token: asking("guess"), "dataset_token"),
        (
            lambda token: asking(token, job_id="job-0002").model_copy(update={"job_id": "job-0001"}),
            "dataset_token",
        ),
        (lambda _token: None, "dataset"),
    ],
)
def test_a_stranger_charges_nothing_and_keeps_nobody_out(
    stranger: Any, field: str, ledger: DatasetLedger
) -> None:
    token = set_budget(ledger, 8).token
    with pytest.raises(ParameterError) as caught:
        ledger.reserve("job-0001", plan(), request=stranger(token))
    assert [problem.field for problem in caught.value.problems] == [field]
    assert "record" not in str(caught.value)
    assert ledger.read().costs == ()
    ledger.reserve("job-0001", plan(), request=asking(token))


def test_a_job_of_the_owner_that_protects_another_unit_is_told_which_is_protected(
    ledger: DatasetLedger,
) -> None:
    token = set_budget(ledger, 8).token
    by_nest = parse_config(
        {"privacy": {"dp_enabled": True}, "guarantee": {"dataset": "birds", "unit_column": "nest"}}
    )
    request = asking(token).model_copy(update={"config": by_nest})
    with pytest.raises(ParameterError, match="protects records; this job protects values of `nest`"):
        ledger.reserve("job-0001", plan(unit="value of nest"), request=request)


def test_a_replaced_token_proves_nothing_and_jobs_that_are_let_in_go_on(ledger: DatasetLedger) -> None:
    old = set_budget(ledger, 8).token
    ledger.reserve("job-0001", plan(), request=asking(old))
    new = ledger.rotate_token()
    ledger.reserve("job-0001", plan(steps=9), request=asking(old))
    with pytest.raises(ParameterError, match="may have been replaced"):
        ledger.reserve("job-0002", plan(steps=9), request=asking(old, job_id="job-0002"))
    ledger.reserve("job-0002", plan(steps=9), request=asking(new, job_id="job-0002"))


def test_no_token_is_kept_in_the_store(ledger: DatasetLedger, store: Store) -> None:
    token = set_budget(ledger, 8).token
    assert token is not None
    assert not any(token.encode() in store.read(key) for key in store.list("privacy/"))
    binding = read_binding(store, "birds")
    assert binding is not None
    entries = [key for key in store.list("privacy/") if "/private/" not in key]
    assert not any(binding.key.encode() in store.read(key) for key in entries)


def test_of_two_owners_at_once_one_gets_the_dataset(store: Store) -> None:
    def claim(owner: str) -> bool:
        try:
            return set_budget(DatasetLedger(store, "birds"), 8, owner=owner).token is not None
        except ParameterError:
            return False

    with ThreadPoolExecutor(JOBS) as pool:
        won = list(pool.map(claim, [f"owner-{n}" for n in range(JOBS)]))
    assert won.count(True) == 1
    (budget,) = DatasetLedger(store, "birds").read().entries
    assert isinstance(budget, Budget)
    assert budget.owner == f"owner-{won.index(True)}"


def test_a_budget_of_an_older_release_goes_on_without_an_owner(store: Store) -> None:
    ledger = anybodys(store, 8)
    ledger.reserve("job-0001", plan())
    made = anybodys_again(ledger, 9).budget
    assert (made.owner, made.composition) == (None, Composition.FIXED)
    with pytest.raises(ParameterError, match="jobs that protect records are charged to it already"):
        ledger.set_budget(epsilon=9, delta=1e-6, by="x", reason="", unit="value of nest", owner="aviary")
    assert set_budget(ledger, 9).token is not None


def test_a_price_takes_no_room_from_what_is_set_aside_already(store: Store) -> None:
    ledger = DatasetLedger(store, "birds")
    ledger.reserve("job-0001", plan(steps=0, by_products=schema(0.1, 1e-7)))
    ledger.reserve("job-0001", plan(by_products=schema(0.1, 1e-7)))
    ledger.reserve("job-0001", plan(steps=0, by_products=schema(0.1, 1e-7)))
    assert [cost.plan.steps for cost in ledger.read().costs] == [1000]


def test_a_drawn_name_is_given_no_budget(store: Store) -> None:
    with pytest.raises(ParameterError, match="drawn for one job"):
        set_budget(DatasetLedger(store, f"job-{'0' * 32}"), 8)


def test_a_ledger_named_by_a_digest_is_moved_to_a_drawn_name(store: Store) -> None:
    digest = "0" * 32
    old = DatasetLedger(store, digest)
    old.reserve("job-0001", plan(dataset=digest))
    store.write(f"privacy/{digest}/private/key", b"k" * 32)
    with pytest.raises(ParameterError, match="wait for them"):
        rename(store, digest)
    old.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=True)
    name = rename(store, digest)
    found = DatasetLedger(store, name).read()
    assert [(cost.steps, cost.plan.dataset) for cost in found.costs] == [(7, name)]
    assert store.read(f"privacy/{name}/private/key") == b"k" * 32
    assert not any(digest in key or digest.encode() in store.read(key) for key in store.list("privacy/"))


class DyingStore(LocalStore):
    """A store whose process is killed at the n-th change."""

    def __init__(self, root: Path, *, changes: int) -> None:
        super().__init__(root)
        self._left = changes

    def put_if_absent(self, key: str, data: bytes) -> bool:
        self._live()
        return super().put_if_absent(key, data)

    def delete(self, key: str) -> None:
        self._live()
        super().delete(key)

    def _live(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise KeyboardInterrupt


@pytest.mark.parametrize("changes", range(8))
def test_a_move_that_was_interrupted_is_gone_on_with(changes: int, tmp_path: Path) -> None:
    whole = LocalStore(tmp_path)
    ledger = DatasetLedger(whole, "old")
    ledger.reserve("job-0001", plan(dataset="old"))
    ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=True)
    whole.write("privacy/old/private/key", b"k" * 32)
    with pytest.raises(KeyboardInterrupt):
        rename(DyingStore(tmp_path, changes=changes), "old", to="new")
    assert rename(whole, "old", to="new") == "new"
    assert [cost.steps for cost in DatasetLedger(whole, "new").read().costs] == [7]
    assert list(whole.children("privacy/")) == ["new"]


def test_a_ledger_is_not_moved_onto_another(store: Store) -> None:
    for name in ("one", "two"):
        DatasetLedger(store, name).reserve("job-0001", plan(dataset=name, steps=0))
        DatasetLedger(store, name).settle("job-0001", outcome=Outcome.FAILED, steps=0, by_products=False)
    with pytest.raises(ParameterError, match="has a ledger already"):
        rename(store, "one", to="two")
    with pytest.raises(ParameterError, match="no such ledger"):
        rename(store, "three")
