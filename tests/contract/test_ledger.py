"""The ledger in a store: one suite for the folder and for a real S3 server."""

from __future__ import annotations

import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from nss_train.errors import BudgetExceeded, InfrastructureError, ParameterError, StoreUnavailable
from nss_train.privacy.accounting.dataset_budget import Budget
from nss_train.privacy.accounting.ledger import Reservation, Settlement
from tasks.jobs.documents import Outcome
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.store.base import Store
from tasks.store.local import LocalStore
from tests.unit.privacy.plans import plan, schema

from .ledgers import anybodys, anybodys_again, asking, set_budget

JOBS = 8


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


def test_times_are_whole_minutes_and_older_entries_keep_theirs(ledger: DatasetLedger, store: Store) -> None:
    older = {"kind": "budget", "at": "2026-01-01T10:11:12.345678Z", "by": "b", "reason": "r"}
    limits = {"epsilon": 8.0, "delta": 1e-5}
    store.write("privacy/birds/00000001.json", json.dumps(older | limits).encode())
    ledger.set_budget(epsilon=9, delta=1e-5, by="b", reason="more")
    ledger.reserve("job-0001", plan())
    ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=7, by_products=False)
    first, *others = [entry.at for entry in ledger.read().entries]
    assert first.isoformat() == "2026-01-01T10:11:12.345678+00:00"
    assert [(at.second, at.microsecond) for at in others] == [(0, 0)] * 3
    assert sorted(others) == others


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
    with pytest.raises(ParameterError) as caught:  # half of a character, which no document can keep
        ledger.set_budget(
            epsilon=8, delta=1e-6, by="a\udcff", reason="a\udcff", unit="value of a\udcff", owner="a"
        )
    assert [problem.field for problem in caught.value.problems] == ["by", "reason", "unit"]
    assert ledger.read().entries == ()


def test_a_price_takes_no_room_from_what_is_set_aside_already(store: Store) -> None:
    ledger = DatasetLedger(store, "birds")
    ledger.reserve("job-0001", plan(steps=0, by_products=schema(0.1, 1e-7)))
    ledger.reserve("job-0001", plan(by_products=schema(0.1, 1e-7)))
    ledger.reserve("job-0001", plan(steps=0, by_products=schema(0.1, 1e-7)))
    assert [cost.plan.steps for cost in ledger.read().costs] == [1000]


def test_a_drawn_name_is_given_no_budget(store: Store) -> None:
    with pytest.raises(ParameterError, match="drawn for one job"):
        set_budget(DatasetLedger(store, f"job-{'0' * 32}"), 8)
