"""The store's side of privacy ledgers: appended to by number, so that nobody spends what is spent already."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from datetime import UTC, datetime

from pydantic import TypeAdapter, ValidationError

from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.privacy.ledger import Budget, Entry, Ledger, Reservation, Settlement
from nss_train.privacy.plan import PrivacyPlan
from tasks import version
from tasks.job import Outcome
from tasks.store.base import Store

logger = logging.getLogger(__name__)

_DATASET = re.compile(r"[a-z0-9][a-z0-9-]{0,63}")
_DIGITS = 8
_ENTRY: TypeAdapter[Entry] = TypeAdapter(Entry)


class DatasetLedger:
    """The ledger of one dataset, ``privacy/<dataset>/<number>.json``.

    An entry is valid because it was checked against all that have smaller numbers: who loses the
    race for a number reads again and checks again. Each call may be repeated when its answer was
    lost on the way. This module needs the accountant, which a client may not have installed.
    """

    def __init__(self, store: Store, dataset: str) -> None:
        if not _DATASET.fullmatch(dataset):
            remedy = "use up to 64 lower-case letters, digits and inner hyphens"
            problem = Problem(field="dataset", value=dataset[:100], remedy=remedy)
            raise ParameterError("Not a dataset's name.", [problem])
        self._store = store
        self._dataset = dataset
        self._prefix = f"privacy/{dataset}/"

    def read(self) -> Ledger:
        """All that happened so far; :class:`InfrastructureError` when the store's ledger is not whole."""
        names = list(self._store.children(self._prefix))
        if names != [_name(number) for number in range(1, len(names) + 1)]:
            raise InfrastructureError(
                f"The ledger of dataset {self._dataset} has gaps: {names[-1]} is there."
            )
        return Ledger(dataset=self._dataset, entries=tuple(self._entry(name) for name in names))

    def set_budget(self, *, epsilon: float, delta: float, by: str, reason: str) -> Budget:
        """Put a budget in force, unless it is already; :class:`ParameterError` for a bad one."""
        try:
            budget = Budget(at=datetime.now(UTC), by=by, reason=reason, epsilon=epsilon, delta=delta)
        except ValidationError as error:
            raise ParameterError("Not a budget.", _problems(error)) from error

        def entry(ledger: Ledger) -> Entry | None:
            held = ledger.budget
            return None if held is not None and held == budget.model_copy(update={"at": held.at}) else budget

        return self._append(entry).budget or budget

    def reserve(self, job_id: str, plan: PrivacyPlan) -> None:
        """Set aside what a job may cost, once; :class:`BudgetExceeded` when there is not enough."""

        def entry(ledger: Ledger) -> Entry | None:
            held = ledger.reservation(job_id)
            if ledger.settlement(job_id) is not None or (held is not None and held.plan == plan):
                return None
            ledger.check(job_id, plan)
            return Reservation(at=datetime.now(UTC), job_id=job_id, plan=plan)

        self._append(entry)

    def settle(self, job_id: str, *, outcome: Outcome, steps: int, by_products: bool) -> None:
        """Charge a job that has ended what it ran, once. One that reserved nothing costs nothing."""

        def entry(ledger: Ledger) -> Entry | None:
            if ledger.reservation(job_id) is None or ledger.settlement(job_id) is not None:
                return None
            return Settlement(
                at=datetime.now(UTC),
                job_id=job_id,
                outcome=outcome.value,
                steps=steps,
                by_products=by_products,
            )

        self._append(entry)

    def _append(self, make: Callable[[Ledger], Entry | None]) -> Ledger:
        """Append what is made of the ledger as it is, and as often as somebody else was faster."""
        while True:
            ledger = self.read()
            entry = make(ledger)
            if entry is None:
                return ledger
            number = len(ledger.entries) + 1
            document = {"version": version.VERSION} | entry.model_dump(mode="json")
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
                version.check(document, what=f"The store's {self._prefix}{name}")
                document.pop("version", None)  # the library's entries know nothing of the store
            return _ENTRY.validate_json(json.dumps(document))
        except ValueError as error:
            raise InfrastructureError(f"The store's {self._prefix}{name} is no entry: {error}") from error


def _problems(error: ValidationError) -> list[Problem]:
    return [
        Problem(field=".".join(map(str, wrong["loc"])), value=wrong["input"], remedy=wrong["msg"])
        for wrong in error.errors()
    ]


def _name(number: int) -> str:
    return f"{number:0{_DIGITS}d}.json"
