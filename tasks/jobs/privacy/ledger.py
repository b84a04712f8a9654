"""Privacy ledgers in the store: entries are appended by number, so that no budget is spent twice."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from pydantic import TypeAdapter, ValidationError

from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.privacy.accounting import renyi_filter
from nss_train.privacy.accounting.dataset_budget import Budget, Composition, in_words
from nss_train.privacy.accounting.ledger import Entry, Ledger, Reservation, Settlement
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.observables import minute_after, minute_before
from nss_train.text.names import is_unnamed
from tasks.jobs import versioning
from tasks.jobs.documents import JobRequest, Outcome
from tasks.jobs.privacy.datasets import PRIVATE, DatasetKeys, bind, read_binding, rotate, strangers_problems
from tasks.jobs.privacy.same_data import noticed
from tasks.jobs.submission import TENANT
from tasks.jobs.texts import problems_of_texts
from tasks.store.base import Store

logger = logging.getLogger(__name__)

_DIGITS = 8
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)
UNIT = r"record|value of .+"
BY_PRODUCTS_SHARE = 0.25
"""Share of a budget's δ set aside for by-products: two and a half private schemas of jobs with the same δ.

It costs ln(4/3)/(α−1) of ε, 0.04 at the order 8."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """The request for a budget; ``None`` keeps the value of the budget before it."""

    epsilon: float
    delta: float
    unit: str | None = None
    owner: str | None = None
    composition: Composition | None = None
    orders: tuple[float, ...] | None = None
    by_products_delta: float | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Granted:
    """A budget that is in force."""

    budget: Budget
    token: str | None
    """Token with which the owner's jobs prove themselves; shown once, when the owner is fixed."""


class DatasetLedger:
    """The ledger of one dataset, ``privacy/<dataset>/<number>.json``.

    An entry is valid because it was checked against all that have smaller numbers: a writer that loses the
    race for a number reads and checks again. Each call may be repeated when its answer was lost on the way.
    Times are whole minutes, as in all that is shown of a job: a job's entries begin and end with it.
    This module needs the accountant, which a client may not have installed.
    """

    def __init__(self, store: Store, dataset: str) -> None:
        self._keys = DatasetKeys(dataset)
        self._store = store
        self._dataset = dataset
        self._prefix = self._keys.root

    def read(self) -> Ledger:
        """Return the ledger so far; raise :class:`InfrastructureError` when the store's is not whole."""
        names = [name for name in self._store.children(self._prefix) if name != PRIVATE]
        if names != [_name(number) for number in range(1, len(names) + 1)]:
            raise InfrastructureError(
                f"The ledger of dataset {self._dataset} has gaps: {names[-1]} is there."
            )
        return Ledger(dataset=self._dataset, entries=tuple(self._entry(name) for name in names))

    def set_budget(
        self,
        *,
        epsilon: float,
        delta: float,
        by: str,
        reason: str,
        unit: str | None = None,
        owner: str | None = None,
        composition: Composition | None = None,
        orders: tuple[float, ...] | None = None,
        by_products_delta: float | None = None,
    ) -> Granted:
        """Put a budget in force, unless it is already; raise :class:`ParameterError` for a bad one.

        The first budget fixes for good who owns the dataset and what it protects; a value that is left out
        stays as it was in the budget before.
        """
        limits = Limits(
            epsilon=epsilon,
            delta=delta,
            unit=unit,
            owner=owner,
            composition=composition,
            orders=orders,
            by_products_delta=by_products_delta,
        )
        budget = self._budget(limits, by=by, reason=reason)
        token = None
        if budget.owner is not None and budget.unit is not None:
            token = bind(self._store, self._dataset, owner=budget.owner, unit=budget.unit)
            budget = self._budget(limits, by=by, reason=reason)  # another writer may have been first

        def entry(ledger: Ledger) -> Entry | None:
            held = ledger.budget
            return None if held is not None and held == budget.model_copy(update={"at": held.at}) else budget

        return Granted(budget=self._append(entry).budget or budget, token=token)

    def _budget(self, limits: Limits, *, by: str, reason: str) -> Budget:
        """Return the requested budget; raise :class:`ParameterError` with all that is wrong with it."""
        ledger, binding = self.read(), read_binding(self._store, self._dataset)
        bound = {} if binding is None else {"owner": binding.owner, "unit": binding.unit}
        problems = [
            *_binding_problems(limits, bound, ledger),
            *problems_of_texts(by=by, reason=reason, unit=limits.unit),
        ]
        if is_unnamed(self._dataset):
            remedy = "this name was drawn for one job; choose another (`budget rename` moves a ledger)"
            problems.append(Problem(field="dataset", value=self._dataset, remedy=remedy))
        given = _completed(limits, ledger.budget) | bound
        try:
            at = minute_before(datetime.now(UTC))
            budget = Budget.model_validate(given | {"at": at, "by": by, "reason": reason})
        except ValidationError as error:
            raise ParameterError("Not a budget.", [*_problems(error), *problems]) from error
        if budget.composition is Composition.ADAPTIVE and not renyi_filter.has_room(
            budget.orders, epsilon=budget.epsilon, delta=budget.training_delta
        ):
            remedy = "no job at all would fit at these orders; add larger ones, or one alone (--orders 64)"
            problems.append(Problem(field="orders", value=budget.orders, remedy=remedy))
        if problems:
            raise ParameterError("Not a budget.", problems)
        return budget

    def rotate_token(self) -> str:
        """Replace the owner's token and return the new one, which is shown only this once."""
        return rotate(self._store, self._dataset)

    def same_data(self) -> list[dict[str, Any]]:
        """Return other datasets that have rows of this one, as far as jobs have shown."""
        return [one.model_dump(mode="json") for one in noticed(self._store, self._dataset)]

    def reserve(self, job_id: str, plan: PrivacyPlan, *, request: JobRequest | None = None) -> None:
        """Set aside what a job may cost, once; raise :class:`BudgetExceeded` when too little is left.

        A dataset with an owner accepts only a ``request`` that may use it (:class:`ParameterError`). A plan
        without steps is a price of by-products, and does not replace what is set aside already.
        """

        def entry(ledger: Ledger) -> Entry | None:
            held = ledger.reservation(job_id)
            if ledger.settlement(job_id) is not None:
                return None
            if held is not None and (held.plan == plan or plan.steps == 0):
                return None
            if held is None:
                self._check_access(request)
            ledger.check(job_id, plan)
            return Reservation(at=minute_before(datetime.now(UTC)), job_id=job_id, plan=plan)

        self._append(entry)

    def _check_access(self, request: JobRequest | None) -> None:
        binding = read_binding(self._store, self._dataset)
        if binding is None:
            return
        if request is None:
            remedy = "belongs to an owner, and the request does not say who asks"
            problems = [Problem(field="dataset", value=self._dataset, remedy=remedy)]
        else:
            problems = list(strangers_problems(binding, request))
        if problems:
            raise ParameterError("The job may not be charged to this dataset.", problems)

    def settle(self, job_id: str, *, outcome: Outcome, steps: int, by_products: bool) -> None:
        """Charge an ended job what it ran, once. A job that reserved nothing costs nothing."""

        def entry(ledger: Ledger) -> Entry | None:
            if ledger.reservation(job_id) is None or ledger.settlement(job_id) is not None:
                return None
            return Settlement(
                at=minute_after(datetime.now(UTC)),
                job_id=job_id,
                outcome=outcome.value,
                steps=steps,
                by_products=by_products,
            )

        self._append(entry)

    def _append(self, make: Callable[[Ledger], Entry | None]) -> Ledger:
        """Append what ``make`` returns for the ledger as it is; repeat that when another writer was first."""
        while True:
            ledger = self.read()
            entry = make(ledger)
            if entry is None:
                return ledger
            number = len(ledger.entries) + 1
            document = {"version": versioning.VERSION} | entry.model_dump(mode="json")
            if self._store.put_if_absent(
                self._prefix + _name(number), json.dumps(document, indent=1).encode()
            ):
                fields = {"action": f"privacy.{entry.kind}", "dataset": self._dataset, "number": number}
                logger.info("dataset %s: %s %d", self._dataset, entry.kind, number, extra=fields)
                return Ledger(dataset=self._dataset, entries=(*ledger.entries, entry))

    def _entry(self, name: str) -> Entry:
        try:
            document = json.loads(self._store.read(self._prefix + name))
            if isinstance(document, dict):
                versioning.check(document, what=f"The store's {self._prefix}{name}")
                document.pop("version", None)  # the library's entries know nothing of the store
            return _ENTRY.validate_json(json.dumps(document))
        except ValueError as error:
            raise InfrastructureError(f"The store's {self._prefix}{name} is no entry: {error}") from error


def _completed(limits: Limits, held: Budget | None) -> dict[str, Any]:
    """Return all fields of a budget: as requested, else as in the budget before, else the defaults."""
    composition = limits.composition or (Composition.ADAPTIVE if held is None else held.composition)
    before = held if held is not None and held.composition is composition else None
    orders, set_aside = limits.orders, limits.by_products_delta
    if composition is Composition.FIXED:
        orders, set_aside = orders or (), 0.0
    if orders is None:
        orders = renyi_filter.ORDERS if before is None else before.orders
    if set_aside is None:
        share = BY_PRODUCTS_SHARE if before is None else before.by_products_delta / before.delta
        set_aside = share * limits.delta
    return {
        "epsilon": limits.epsilon,
        "delta": limits.delta,
        "unit": limits.unit,
        "owner": limits.owner,
        "composition": composition,
        "orders": orders,
        "by_products_delta": set_aside,
    }


def _binding_problems(limits: Limits, bound: dict[str, str], ledger: Ledger) -> Iterator[Problem]:
    """Yield what is wrong with owner and unit; an older release's budget may stay without them."""
    patterns = {"owner": TENANT, "unit": UNIT}
    remedies = {
        "owner": "name the tenant whose jobs are charged to it: up to 63 lower-case letters and digits",
        "unit": "say what it protects: record, or value of <column>",
    }
    may_lack = ledger.budget is not None and limits.owner is None and limits.unit is None
    for name, pattern in patterns.items():
        value: str | None = getattr(limits, name)
        if name in bound:
            if value not in (None, bound[name]):
                remedy = f"fixed as {bound[name]!r} by the first budget; take another dataset's name"
                yield Problem(field=name, value=value, remedy=remedy)
        elif value is None:
            if not may_lack:
                yield Problem(field=name, value=value, remedy=remedies[name])
        elif not re.fullmatch(pattern, value):
            yield Problem(field=name, value=value[:100], remedy=remedies[name])
    others = [unit for unit in ledger.units if unit != limits.unit]
    if limits.unit is not None and not bound and others:
        said = " and ".join(map(in_words, others))
        remedy = (
            f"jobs that protect {said} are charged to it already; take another dataset's name, or move them"
            f" to another with `budget rename {ledger.dataset}`"
        )
        yield Problem(field="unit", value=limits.unit, remedy=remedy)


def _problems(error: ValidationError) -> list[Problem]:
    return [
        Problem(field=".".join(map(str, wrong["loc"])), value=wrong["input"], remedy=wrong["msg"])
        for wrong in error.errors()
    ]


def _name(number: int) -> str:
    return f"{number:0{_DIGITS}d}.json"
