"""A dataset belongs to who set its budget: nobody else charges it, or learns what it protects."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.errors import ParameterError
from nss_train.privacy.accounting.dataset_budget import Budget, Composition
from tasks.jobs.documents import Outcome
from tasks.jobs.privacy.datasets import read_binding
from tasks.jobs.privacy.ledger import DatasetLedger
from tasks.jobs.privacy.renaming import rename
from tasks.store.base import Store
from tests.unit.privacy.plans import plan

from .ledgers import anybodys, anybodys_again, asking, set_budget

OWNERS = 8


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

    with ThreadPoolExecutor(OWNERS) as pool:
        won = list(pool.map(claim, [f"owner-{n}" for n in range(OWNERS)]))
    assert won.count(True) == 1
    (budget,) = DatasetLedger(store, "birds").read().entries
    assert isinstance(budget, Budget)
    assert budget.owner == f"owner-{won.index(True)}"


def test_who_was_first_with_a_name_keeps_its_owner_out_no_longer_than_a_renaming(store: Store) -> None:
    ledger = DatasetLedger(store, "birds")
    ledger.reserve("job-0001", plan(dataset="birds"))
    ledger.settle("job-0001", outcome=Outcome.SUCCEEDED, steps=1, by_products=False)
    with pytest.raises(ParameterError, match="`budget rename birds`"):
        set_budget(ledger, 8, unit="value of nest")
    elsewhere = rename(store, "birds")
    assert set_budget(ledger, 8, unit="value of nest").token is not None
    assert ledger.read().costs == ()
    assert [cost.job_id for cost in DatasetLedger(store, elsewhere).read().costs] == ["job-0001"]


def test_a_budget_of_an_older_release_goes_on_without_an_owner(store: Store) -> None:
    ledger = anybodys(store, 8)
    ledger.reserve("job-0001", plan())
    made = anybodys_again(ledger, 9).budget
    assert (made.owner, made.composition) == (None, Composition.FIXED)
    with pytest.raises(ParameterError, match="jobs that protect records are charged to it already"):
        ledger.set_budget(epsilon=9, delta=1e-6, by="x", reason="", unit="value of nest", owner="aviary")
    assert set_budget(ledger, 9).token is not None
