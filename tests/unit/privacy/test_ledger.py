"""The ledger: what jobs cost together, and whom a budget lets in."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import pytest

from nss_train.errors import BudgetExceeded
from nss_train.privacy.accountant import Accountant
from nss_train.privacy.ledger import Budget, Entry, Ledger, Reservation, Settlement
from nss_train.privacy.plan import PrivacyPlan
from tests.unit.privacy.plans import plan, schema

NOW = datetime(2026, 1, 1, tzinfo=UTC)
FIRST = plan()
SECOND = plan(noise_multiplier=1.5, sampling_rate=0.02, steps=500)


def budget(epsilon: float, delta: float = 1e-6) -> Budget:
    return Budget(at=NOW, by="the board", reason="a test", epsilon=epsilon, delta=delta)


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
    assert f"ε = {found.epsilon_with('job-2', FIRST):.4g} at δ = 1e-06, the budget is 2.7" in problem.remedy
    assert f"1 others cost {FIRST.spent(1000):.4g}, 1 of them unfinished" in problem.remedy


def test_a_budget_of_exactly_the_cost_is_enough() -> None:
    cost = FIRST.spent(1000)
    ledger(budget(cost)).check("job-1", FIRST)
    with pytest.raises(BudgetExceeded):
        ledger(budget(cost - 1e-6)).check("job-1", FIRST)


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


@pytest.mark.parametrize("unit", ["group", "value of nest", "record"])
def test_the_groups_of_an_older_release_add_up_with_nothing(unit: str) -> None:
    """Its entries do not say by which column they were grouped."""
    older = reserved("job-1", plan(unit="group")).model_dump_json()
    found = ledger(budget(8), Reservation.model_validate_json(older))
    assert found.epsilon() == pytest.approx(FIRST.spent(1000))
    with pytest.raises(BudgetExceeded) as caught:
        found.check("job-2", plan(unit=unit))
    (problem,) = caught.value.problems
    assert "an older release did not record by which column" in problem.remedy
    assert "another guarantee.dataset" in problem.remedy
    # A job may replace its own plan, and one that did nothing is in nobody's way.
    found.check("job-1", plan(unit=unit))
    ledger(*found.entries, settled("job-1", steps=0)).check("job-2", plan(unit=unit))


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
