"""The ledger: what jobs cost together, and which jobs a budget admits."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest

from nss_train.errors import BudgetExceeded
from nss_train.privacy.accounting.accountant import Accountant
from nss_train.privacy.accounting.dataset_budget import Budget, Composition
from nss_train.privacy.accounting.ledger import Entry, Ledger, Reservation, Settlement
from nss_train.privacy.accounting.plan import ByProduct, PrivacyPlan
from nss_train.privacy.accounting.renyi_filter import ORDERS
from tests.unit.privacy.plans import plan, schema

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = plan()
SECOND = plan(noise_multiplier=1.5, sampling_rate=0.02, steps=500)


def budget(epsilon: float, delta: float = 1e-6) -> Budget:
    return Budget(at=NOW, by="the board", reason="a test", epsilon=epsilon, delta=delta)


def adaptive(epsilon: float, delta: float = 1e-6, **changes: Any) -> Budget:
    limits = {"composition": Composition.ADAPTIVE, "orders": ORDERS, "by_products_delta": delta / 4}
    return Budget.model_validate(budget(epsilon, delta).model_dump() | limits | changes)


def reserved(job_id: str, what: PrivacyPlan) -> Reservation:
    return Reservation(at=NOW, job_id=job_id, plan=what)


def settled(job_id: str, *, steps: int, by_products: bool = True) -> Settlement:
    return Settlement(at=NOW, job_id=job_id, outcome="succeeded", steps=steps, by_products=by_products)


def ledger(*entries: Entry) -> Ledger:
    return Ledger(dataset="birds", entries=entries)


@pytest.mark.parametrize(("by", "epsilon"), [(Accountant.PLD, 2.6365), (Accountant.RDP, 2.9121)])
def test_jobs_are_composed_not_added(by: Accountant, epsilon: float) -> None:
    two = ledger(budget(8), reserved("job-1", FIRST), reserved("job-2", SECOND))
    assert two.epsilon(by) == pytest.approx(epsilon, rel=0.01)


def test_a_job_alone_costs_what_its_plan_says() -> None:
    with_schema = plan(by_products=schema(0.2, 1e-7))
    assert ledger(budget(8), reserved("job-1", with_schema)).epsilon() == pytest.approx(
        with_schema.spent(1000), rel=1e-9
    )


def test_by_products_are_added_and_their_delta_is_taken_off() -> None:
    with_schema = plan(by_products=schema(0.2, 4e-7))
    both = ledger(budget(8), reserved("job-1", with_schema), reserved("job-2", with_schema))
    # What is left of δ = 1e-6 after two schemas is 2e-7.
    alone = plan(steps=2000, delta=2e-7).spent(2000)
    assert both.epsilon() == pytest.approx(0.4 + alone, rel=1e-9)


@pytest.mark.heavy
def test_an_unsettled_job_counts_what_it_reserved_and_a_settled_one_what_it_ran() -> None:
    entries = (budget(8), reserved("job-1", FIRST))
    assert ledger(*entries).epsilon() == pytest.approx(FIRST.spent(1000))
    assert ledger(*entries, settled("job-1", steps=10)).epsilon() == pytest.approx(FIRST.spent(10))
    # Steps that were lost with their machines count, more than were planned or not.
    assert ledger(*entries, settled("job-1", steps=1200)).epsilon() == pytest.approx(FIRST.spent(1200))


def test_a_job_that_did_nothing_costs_nothing() -> None:
    with_schema = plan(by_products=schema(0.2, 1e-7))
    ended = settled("job-1", steps=0, by_products=False)
    assert ledger(budget(8), reserved("job-1", with_schema), ended).epsilon() == 0
    ended = settled("job-1", steps=0, by_products=True)
    assert ledger(budget(8), reserved("job-1", with_schema), ended).epsilon() == 0.2


def test_the_last_budget_is_in_force() -> None:
    found = ledger(budget(8), reserved("job-1", FIRST), budget(3, 1e-5))
    assert found.budget == budget(3, 1e-5)
    assert found.epsilon() == pytest.approx(plan(delta=1e-5).spent(1000))


def test_without_a_budget_there_is_a_history_but_no_limit() -> None:
    found = ledger(*(reserved(f"job-{n}", FIRST) for n in range(20)))
    found.check("job-20", FIRST)
    assert found.budget is None
    assert len(found.costs) == 20
    assert found.delta == pytest.approx(20e-6)
    assert 0 < found.epsilon() < math.inf


def test_a_job_that_fits_is_let_in_and_one_that_does_not_is_told_why() -> None:
    found = ledger(budget(2.7), reserved("job-1", FIRST))
    found.check("job-2", SECOND)
    assert found.epsilon_with("job-2", SECOND) == pytest.approx(2.6365, rel=0.01)
    with pytest.raises(BudgetExceeded, match="dataset birds") as caught:
        found.check("job-2", FIRST)
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("privacy.epsilon", 2.0)
    assert f"{found.epsilon_with('job-2', FIRST):.4g} of 2.7 if all settings had been fixed" in problem.remedy
    assert f"1 others cost {FIRST.spent(1000):.4g}, 1 of them unfinished" in problem.remedy


def test_a_budget_of_exactly_the_cost_is_enough() -> None:
    cost = FIRST.spent(1000)
    ledger(budget(cost)).check("job-1", FIRST)
    with pytest.raises(BudgetExceeded):
        ledger(budget(cost - 1e-6)).check("job-1", FIRST)


@pytest.mark.heavy
def test_what_a_settled_job_gave_back_is_there_for_the_next() -> None:
    entries = (budget(2.2), reserved("job-1", FIRST))
    with pytest.raises(BudgetExceeded):
        ledger(*entries).check("job-2", FIRST)
    ledger(*entries, settled("job-1", steps=10)).check("job-2", FIRST)


def test_a_second_plan_of_a_job_replaces_the_first() -> None:
    found = ledger(budget(2.2), reserved("job-1", FIRST))
    found.check("job-1", FIRST)
    assert found.epsilon_with("job-1", SECOND) == pytest.approx(SECOND.spent(500))
    assert [cost.plan for cost in ledger(*found.entries, reserved("job-1", SECOND)).costs] == [SECOND]


def test_every_reason_is_told_at_once() -> None:
    by_group = plan(unit="value of nest", by_products=schema(0.2, 9e-7))
    with pytest.raises(BudgetExceeded) as caught:
        ledger(budget(1, 8e-7), reserved("job-1", FIRST)).check("job-2", by_group)
    assert [problem.field for problem in caught.value.problems] == ["privacy.delta", "guarantee.unit_column"]
    assert "δ = 9e-07 of the budget's 8e-07" in caught.value.problems[0].remedy
    assert "each record" in caught.value.problems[1].remedy


@pytest.mark.parametrize("steps", [0, 10])
@pytest.mark.parametrize("by", list(Accountant))
def test_by_products_alone_can_use_delta_up(by: Accountant, steps: int) -> None:
    greedy = plan(by_products=schema(0.2, 6e-7))
    entries: list[Entry] = [budget(8)]
    for job_id in ("job-1", "job-2"):
        entries += [reserved(job_id, greedy), settled(job_id, steps=steps)]
    assert math.isinf(ledger(*entries).epsilon(by))
    assert math.isfinite(ledger(*entries[:3]).epsilon(by))


def test_a_job_that_did_nothing_does_not_decide_the_unit() -> None:
    nothing = settled("job-1", steps=0)
    ledger(budget(8), reserved("job-1", FIRST), nothing).check("job-2", plan(unit="value of nest"))


def test_units_of_different_columns_do_not_add_up() -> None:
    found = ledger(budget(8), reserved("job-1", plan(unit="value of nest")))
    found.check("job-2", plan(unit="value of nest"))
    with pytest.raises(BudgetExceeded) as caught:
        found.check("job-2", plan(unit="value of ring"))
    (problem,) = caught.value.problems
    assert (problem.field, problem.value) == ("guarantee.unit_column", "value of ring")
    assert "each value of nest" in problem.remedy


@pytest.mark.heavy
@pytest.mark.parametrize("unit", ["group", "value of nest", "record"])
def test_the_groups_of_an_older_release_add_up_with_nothing(unit: str) -> None:
    """An older release's entries do not say by which column they were grouped."""
    older = reserved("job-1", plan(unit="group")).model_dump_json()
    found = ledger(budget(8), Reservation.model_validate_json(older))
    assert found.epsilon() == pytest.approx(FIRST.spent(1000))
    with pytest.raises(BudgetExceeded) as caught:
        found.check("job-2", plan(unit=unit))
    (problem,) = caught.value.problems
    assert "an older release did not record by which column" in problem.remedy
    assert "another guarantee.dataset" in problem.remedy
    # A job may replace its own plan, and one that did nothing blocks no other.
    found.check("job-1", plan(unit=unit))
    ledger(*found.entries, settled("job-1", steps=0)).check("job-2", plan(unit=unit))


@pytest.mark.heavy
def test_a_job_of_groups_as_an_older_release_counts_them_is_in_nobodys_company() -> None:
    """While releases run side by side, a plan may still come from an older one."""
    found = ledger(budget(8), reserved("job-1", plan(unit="value of nest")))
    with pytest.raises(BudgetExceeded, match=r"guarantee\.unit_column = 'group'"):
        found.check("job-2", plan(unit="group"))
    ledger(budget(8)).check("job-2", plan(unit="group"))


@pytest.mark.parametrize("wrong", [{"epsilon": 0}, {"epsilon": math.inf}, {"delta": 0}, {"delta": 1}])
def test_a_budget_that_promises_nothing_is_refused(wrong: dict[str, float]) -> None:
    given = {"at": NOW, "by": "me", "reason": "a test", "epsilon": 1, "delta": 1e-6}
    with pytest.raises(ValueError, match="Budget"):
        Budget.model_validate(given | wrong)


@pytest.mark.heavy
def test_the_filter_decides_and_the_refusal_tells_both_figures() -> None:
    # By the default's eight orders the two cost 3.22, as if fixed 2.64.
    found = ledger(adaptive(3.3, by_products_delta=0.0), reserved("job-1", FIRST))
    found.check("job-2", SECOND)
    tight = ledger(adaptive(3.0, by_products_delta=0.0), reserved("job-1", FIRST))
    with pytest.raises(BudgetExceeded) as caught:
        tight.check("job-2", SECOND)
    (problem,) = caught.value.problems
    assert problem.field == "privacy.epsilon"
    said = "adaptive cost would be 3.22 of 3 (2.636 if all settings had been fixed beforehand)"
    assert problem.remedy.startswith(said)
    ledger(budget(3.0), reserved("job-1", FIRST)).check("job-2", SECOND)


@pytest.mark.heavy
def test_both_figures_are_known_and_what_decides_tells_what_is_left() -> None:
    found = ledger(adaptive(8), reserved("job-1", FIRST))
    adaptive_epsilon = found.adaptive_epsilon
    assert adaptive_epsilon is not None
    assert adaptive_epsilon > found.epsilon()
    assert found.left == pytest.approx(8 - adaptive_epsilon)
    fixed = ledger(adaptive(8, composition="fixed"), reserved("job-1", FIRST))
    assert fixed.left == pytest.approx(8 - fixed.epsilon())
    assert ledger(budget(8)).adaptive_epsilon is None
    assert ledger().left is None


def test_by_products_pay_divergence_and_take_their_delta_from_what_is_set_aside() -> None:
    with_schema = plan(by_products=schema(0.2, 1e-7))
    one, two = (
        ledger(adaptive(8), *(reserved(f"job-{n}", p) for n in range(2))).adaptive_epsilon
        for p in (FIRST, with_schema)
    )
    assert one is not None
    assert two is not None
    # At an order from 2 to 8 each of two products costs α · 0.02, and never more than its ε.
    assert one + 2 * 0.04 <= two <= one + 2 * 0.2
    found = ledger(adaptive(20), *(reserved(f"job-{n}", with_schema) for n in range(2)))
    with pytest.raises(BudgetExceeded) as caught:
        found.check("job-3", with_schema)  # a quarter of 1e-6 is set aside, and 2e-7 are gone
    (problem,) = caught.value.problems
    assert problem.field == "privacy.delta"
    assert "δ = 3e-07 of the 2.5e-07 that the budget sets aside" in problem.remedy
    pure = (ByProduct(name="count", epsilon=0.1),)
    found.check("job-3", plan(by_products=pure))


def test_jobs_that_run_at_once_are_counted_in_full_by_the_filter() -> None:
    alone = ledger(adaptive(8), reserved("job-1", FIRST)).adaptive_epsilon
    ran = ledger(adaptive(8), reserved("job-1", FIRST), settled("job-1", steps=10)).adaptive_epsilon
    assert alone is not None
    assert ran is not None
    assert ran < alone
    limits = adaptive(alone + 1e-6)
    with pytest.raises(BudgetExceeded):
        ledger(limits, reserved("job-1", FIRST)).check("job-2", plan(steps=100))
    ledger(limits, reserved("job-1", FIRST), settled("job-1", steps=10)).check("job-2", plan(steps=100))


@pytest.mark.parametrize(
    ("entries", "is_promise"),
    [
        ([adaptive(8), reserved("job-1", FIRST)], True),
        ([adaptive(8), adaptive(9), reserved("job-1", FIRST)], True),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(7)], True),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(9)], False),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(8, delta=1e-5)], False),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(8, orders=(2, 64))], False),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(8, composition="fixed")], False),
        ([adaptive(8), reserved("job-1", FIRST), adaptive(9), adaptive(8)], False),
        ([reserved("job-1", FIRST), adaptive(8)], False),
        ([reserved("job-1", FIRST)], False),
    ],
)
def test_a_budget_that_was_raised_after_results_is_a_history(entries: list[Entry], is_promise: bool) -> None:
    assert ledger(*entries).is_promise is is_promise


def test_a_budget_with_a_unit_lets_in_no_other_whatever_ran_before() -> None:
    for_patients = adaptive(8, unit="value of patient")
    ledger(for_patients).check("job-1", plan(unit="value of patient"))
    with pytest.raises(BudgetExceeded) as caught:
        ledger(for_patients).check("job-1", plan(unit="record"))
    (problem,) = caught.value.problems
    assert problem.field == "guarantee.dataset"
    assert "protects values of `patient`; this job protects records" in problem.remedy


def test_a_budget_as_older_releases_wrote_it_is_read_as_they_meant_it() -> None:
    older = '{"kind":"budget","at":"2026-01-01T00:00:00Z","by":"b","reason":"r","epsilon":3.0,"delta":1e-6}'
    found = Budget.model_validate_json(older)
    assert (found.composition, found.owner, found.unit) == (Composition.FIXED, None, None)
    ledger(found, reserved("job-1", FIRST)).check("job-2", SECOND)


@pytest.mark.parametrize("wrong", [{"orders": ()}, {"orders": (1.0,)}, {"by_products_delta": 1e-6}])
def test_a_filter_that_could_let_nothing_through_is_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="Budget"):
        adaptive(8, **wrong)
