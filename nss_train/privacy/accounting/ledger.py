"""The total cost of all private jobs on a dataset, and whether one more fits. Pure: no files, no store."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field

from nss_train.contract import Frozen
from nss_train.errors import BudgetExceeded, Problem
from nss_train.privacy.accounting import accountant, renyi_filter
from nss_train.privacy.accounting.accountant import Accountant
from nss_train.privacy.accounting.dataset_budget import Budget, Composition, in_words
from nss_train.privacy.accounting.plan import ByProduct, PrivacyPlan
from nss_train.privacy.accounting.renyi_filter import Release

NAMELESS_GROUP = "group"
"""Unit that older releases recorded for a job with groups, without naming the column."""
ROUNDING = 1e-9
"""Share of the budget by which a sum of floats may exceed it."""


class Reservation(Frozen):
    """The most that a job may cost; a later reservation of the same job replaces it."""

    kind: Literal["reservation"] = "reservation"
    at: AwareDatetime
    job_id: str
    plan: PrivacyPlan


class Settlement(Frozen):
    """The actual spending of a job that has ended."""

    kind: Literal["settlement"] = "settlement"
    at: AwareDatetime
    job_id: str
    outcome: Literal["succeeded", "failed", "cancelled"]
    steps: Annotated[int, Field(ge=0)]
    """Private steps that were actually run, those of lost attempts included."""
    by_products: bool
    """``True`` if the by-products were released."""


Entry = Annotated[Budget | Reservation | Settlement, Field(discriminator="kind")]


@dataclass(frozen=True, kw_only=True, slots=True)
class Cost:
    """A job's charge: its whole reservation, or what it actually ran once it is settled."""

    job_id: str
    plan: PrivacyPlan
    steps: int
    by_products: bool
    settled: bool

    @classmethod
    def of(cls, reservation: Reservation, settlement: Settlement | None) -> Self:
        return cls(
            job_id=reservation.job_id,
            plan=reservation.plan,
            steps=reservation.plan.steps if settlement is None else settlement.steps,
            by_products=settlement is None or settlement.by_products,
            settled=settlement is not None,
        )

    @property
    def is_nothing(self) -> bool:
        return self.steps == 0 and not (self.by_products and self.plan.by_products)

    @property
    def epsilon(self) -> float:
        """Return ε of this job alone, at its own δ."""
        return composed([self], self.plan.delta)


def composed(costs: Iterable[Cost], delta: float, by: Accountant = Accountant.PLD) -> float:
    """Return ε of several jobs together at a δ, as if their settings had been fixed beforehand.

    The accountant composes the steps. By-products are added (basic composition): their ε to its result,
    and their δ is subtracted from ``delta`` first. ``inf`` when that leaves nothing.
    """
    costs = list(costs)
    products = _by_products(costs)
    paid = sum(product.epsilon for product in products)
    left = delta - sum(product.delta for product in products)
    trainings = [
        accountant.training(noise_multiplier=noise, sampling_rate=rate, steps=count)
        for (noise, rate), count in _steps(costs).items()
        if count > 0
    ]
    if left < 0 or (trainings and left == 0):
        return math.inf
    return paid + accountant.spent(accountant.together(*trainings), left, by) if trainings else paid


def filtered(costs: Iterable[Cost], budget: Budget) -> float:
    """Return ε of several jobs by the budget's Rényi filter: valid however each was chosen.

    ``inf`` when by-products take more δ than is set aside for them.
    """
    costs = list(costs)
    products = _by_products(costs)
    if sum(product.delta for product in products) > budget.by_products_delta * (1 + ROUNDING):
        return math.inf
    release = Release(steps=_steps(costs), pure=tuple(product.epsilon for product in products))
    return renyi_filter.adaptive_epsilon(
        release, orders=budget.orders or renyi_filter.ORDERS, delta=budget.training_delta
    )


def order_for(expected: PrivacyPlan, *, epsilon: float, delta: float) -> float:
    """Return the filter's order at which most jobs like the expected one fit into a budget."""
    steps = {(expected.noise_multiplier, expected.sampling_rate): expected.steps}
    release = Release(steps=steps, pure=tuple(product.epsilon for product in expected.by_products))
    return renyi_filter.best_order(release, epsilon=epsilon, delta=delta)


def _by_products(costs: Iterable[Cost]) -> list[ByProduct]:
    return [product for cost in costs if cost.by_products for product in cost.plan.by_products]


def _steps(costs: Iterable[Cost]) -> Counter[tuple[float, float]]:
    """Return the number of steps by noise and rate: equal steps are composed at once."""
    steps: Counter[tuple[float, float]] = Counter()
    for cost in costs:
        steps[cost.plan.noise_multiplier, cost.plan.sampling_rate] += cost.steps
    return steps


@dataclass(frozen=True, kw_only=True, slots=True)
class Ledger:
    """The history of one dataset's privacy, in order."""

    dataset: str
    entries: tuple[Entry, ...] = ()

    @property
    def budget(self) -> Budget | None:
        """Return the budget in force; without one there is a history, but no limit."""
        return next((entry for entry in reversed(self.entries) if isinstance(entry, Budget)), None)

    def reservation(self, job_id: str) -> Reservation | None:
        return self._reservations.get(job_id)

    def settlement(self, job_id: str) -> Settlement | None:
        return self._settlements.get(job_id)

    @property
    def costs(self) -> tuple[Cost, ...]:
        """Return the cost of every job, in the order of their first reservations."""
        settled = self._settlements
        return tuple(Cost.of(held, settled.get(job_id)) for job_id, held in self._reservations.items())

    @property
    def units(self) -> tuple[str, ...]:
        """Return the units of privacy of all jobs that cost anything; different units do not add up."""
        return tuple(dict.fromkeys(cost.plan.unit for cost in self.costs if not cost.is_nothing))

    @property
    def delta(self) -> float:
        """Return the δ at which ε is reported: the budget's, or else the sum of the jobs' own."""
        return (
            min(1.0, sum(cost.plan.delta for cost in self.costs))
            if self.budget is None
            else self.budget.delta
        )

    @property
    def is_promise(self) -> bool:
        """Tell whether the budget in force was promised before the first result, or is stricter than that.

        A budget that was set, or raised, after results only documents spending; it did not limit it.
        """
        kinds = [isinstance(entry, Reservation) for entry in self.entries]
        first = kinds.index(True) if any(kinds) else len(kinds)
        promised = Ledger(dataset=self.dataset, entries=self.entries[:first]).budget
        later = (entry for entry in self.entries[first:] if isinstance(entry, Budget))
        return promised is not None and not any(budget.loosens(promised) for budget in later)

    def epsilon(self, by: Accountant = Accountant.PLD) -> float:
        """Return ε of all jobs together at :attr:`delta`, as if their settings had been fixed beforehand."""
        return composed(self.costs, self.delta, by)

    @property
    def adaptive_epsilon(self) -> float | None:
        """Return ε of all jobs together by the budget's filter; ``None`` for a budget without orders."""
        held = self.budget
        return None if held is None or not held.orders else filtered(self.costs, held)

    @property
    def by_products_delta(self) -> float:
        """Return the δ that the by-products of all jobs take."""
        return sum(product.delta for product in _by_products(self.costs))

    @property
    def left(self) -> float | None:
        """Return the remaining ε by the budget's composition; ``None`` without a budget."""
        held = self.budget
        return None if held is None else max(0.0, held.epsilon - _cost(self.costs, held))

    def epsilon_with(self, job_id: str, plan: PrivacyPlan) -> float:
        """Return :meth:`epsilon` with one more job, or with another plan for an existing one."""
        return composed(self._costs_with(job_id, plan), self.delta)

    def check(self, job_id: str, plan: PrivacyPlan) -> None:
        """Raise :class:`BudgetExceeded` with every reason why the budget does not allow the job."""
        problems = [] if self.budget is None else list(self._problems(job_id, plan, self.budget))
        if problems:
            raise BudgetExceeded(f"The privacy budget of dataset {self.dataset} does not allow it.", problems)

    def _problems(self, job_id: str, plan: PrivacyPlan, budget: Budget) -> Iterator[Problem]:
        costs = self._costs_with(job_id, plan)
        delta = sum(product.delta for product in _by_products(costs))
        if _takes_too_much_delta(delta, budget):
            yield _delta_is_used_up(plan, delta, budget)
        elif _cost(costs, budget) > budget.epsilon * (1 + ROUNDING):
            others = [cost for cost in costs if cost.job_id != job_id]
            yield _too_much(plan, costs, others, budget)
        if budget.unit is not None and not _add_up(budget.unit, plan.unit):
            yield other_unit(plan.unit, protected=budget.unit)
            return
        # Not the job's own unit: this plan would replace its earlier one.
        others_units = (other.plan.unit for other in costs if other.job_id != job_id and not other.is_nothing)
        stranger = next((unit for unit in others_units if not _add_up(unit, plan.unit)), None)
        if stranger is not None:
            yield _other_units(plan, stranger)

    def _costs_with(self, job_id: str, plan: PrivacyPlan) -> list[Cost]:
        more = Cost(job_id=job_id, plan=plan, steps=plan.steps, by_products=True, settled=False)
        return [*(cost for cost in self.costs if cost.job_id != job_id), more]

    @property
    def _reservations(self) -> dict[str, Reservation]:
        return {entry.job_id: entry for entry in self.entries if isinstance(entry, Reservation)}

    @property
    def _settlements(self) -> dict[str, Settlement]:
        return {entry.job_id: entry for entry in self.entries if isinstance(entry, Settlement)}


def _add_up(unit: str, other: str) -> bool:
    """Tell whether costs of jobs with these units add up: if the units are equal, and known."""
    return unit == other != NAMELESS_GROUP


def _other_units(plan: PrivacyPlan, others: str) -> Problem:
    if NAMELESS_GROUP in (plan.unit, others):
        remedy = (
            f"other jobs protect each {others}, and an older release did not record by which column it"
            " grouped, so that it is unknown whether the two add up; use another guarantee.dataset, with the"
            " budget that is left"
        )
    else:
        remedy = (
            f"other jobs protect each {others}, and the two do not add up; protect the same"
            " (guarantee.unit_column, data.group_training_examples_by)"
        )
    return Problem(field="guarantee.unit_column", value=plan.unit, remedy=remedy)


def other_unit(unit: str, *, protected: str) -> Problem:
    """Return the problem of a job whose unit differs from the budget's: the two do not add up."""
    remedy = (
        f"the dataset protects {in_words(protected)}; this job protects {in_words(unit)}: set"
        " guarantee.unit_column (or data.group_training_examples_by) to match"
    )
    return Problem(field="guarantee.dataset", value=unit, remedy=remedy)


def _takes_too_much_delta(delta: float, budget: Budget) -> bool:
    if budget.composition is Composition.FIXED:
        return delta >= budget.delta
    return delta > budget.by_products_delta * (1 + ROUNDING)


def _cost(costs: Iterable[Cost], budget: Budget) -> float:
    """Return ε by the budget's composition."""
    if budget.composition is Composition.FIXED:
        return composed(costs, budget.delta)
    return filtered(costs, budget)


def _delta_is_used_up(plan: PrivacyPlan, delta: float, budget: Budget) -> Problem:
    where = f"the budget's {budget.delta:.3g} and leave none for training"
    if budget.composition is Composition.ADAPTIVE:
        where = f"the {budget.by_products_delta:.3g} that the budget sets aside for them"
    remedy = (
        f"the by-products of all jobs would take δ = {delta:.3g} of {where}; lower it or"
        " guarantee.schema_share, or declare the schema"
    )
    return Problem(field="privacy.delta", value=plan.delta, remedy=remedy)


def _too_much(plan: PrivacyPlan, costs: list[Cost], others: list[Cost], budget: Budget) -> Problem:
    unfinished = sum(not cost.settled for cost in others)
    waiting = f", {unfinished} of them unfinished and counted in full" if unfinished else ""
    fixed = composed(costs, budget.delta)
    would_be = f"cost would be {fixed:.4g} of {budget.epsilon:g} if all settings had been fixed beforehand"
    if budget.composition is Composition.ADAPTIVE:
        would_be = (
            f"adaptive cost would be {filtered(costs, budget):.4g} of {budget.epsilon:g}"
            f" ({fixed:.4g} if all settings had been fixed beforehand)"
        )
    remedy = (
        f"{would_be} at δ = {budget.delta:.3g}; {len(others)} others cost {_cost(others, budget):.4g}"
        f"{waiting}; ask for less"
    )
    return Problem(field="privacy.epsilon", value=plan.epsilon, remedy=remedy)
