"""What a private job costs: its plan, its steps on record before they are taken, its settlement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train.contract import CHARGED
from tasks import version
from tasks.job import Charge, Keys, Outcome
from tasks.library import require
from tasks.store.base import Store

if TYPE_CHECKING:
    from tasks.ledger import DatasetLedger

ACCOUNTANT = "dp_accounting"
"""Not part of a client's installation."""


def open_ledger(store: Store, dataset: str) -> DatasetLedger:
    """A dataset's ledger; :class:`InfrastructureError` where the accountant is not installed."""
    require(ACCOUNTANT)
    from tasks.ledger import DatasetLedger

    return DatasetLedger(store, dataset)


class Charges:
    """The private steps of one job in the store. They outlive the attempts that took them."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._keys = Keys(job_id)
        self._job_id = job_id

    def reserve(self, plan: dict[str, Any]) -> None:
        """Set aside what a plan costs, in its dataset's ledger; idempotent.

        Raises :class:`~nss_train.errors.BudgetExceeded` when there is not enough left.
        """
        require(ACCOUNTANT)
        from nss_train.privacy.plan import PrivacyPlan

        found = PrivacyPlan.model_validate(plan)
        # First: whoever settles the job must find the ledger, also when this worker dies right after.
        self._store.write(self._keys.privacy_plan, found.model_dump_json(indent=1).encode())
        open_ledger(self._store, found.dataset).reserve(self._job_id, found)

    def record(self, attempt: int, steps: int) -> None:
        """Put on record that an attempt takes so many steps, the next included."""
        charge = Charge(attempt=attempt, steps=steps)
        self._store.write(self._keys.charge(attempt), charge.model_dump_json().encode())

    def taken(self, *, except_by: int | None = None) -> int:
        """Steps on record of all attempts, or of all but one."""
        charges = map(self._charge, self._store.list(self._keys.charges))
        return sum(charge.steps for charge in charges if charge.attempt != except_by)

    def settle(self, outcome: Outcome, *, by_products: bool) -> None:
        """Charge the ended job what it ran; idempotent. Nothing to do for one that is not private."""
        try:
            plan = json.loads(self._store.read(self._keys.privacy_plan))
        except KeyError:
            return
        ledger = open_ledger(self._store, plan["dataset"])
        ledger.settle(self._job_id, outcome=outcome, steps=self.taken(), by_products=by_products)

    def _charge(self, key: str) -> Charge:
        return version.read(Charge, self._store.read(key), what=f"The store's {key}")


def allow(folder: Path, steps: int) -> None:
    """Tell the stage that works in a folder how many of its private steps are on record."""
    aside = folder / f".{CHARGED}.part"
    aside.write_text(str(steps), encoding="utf-8")
    aside.replace(folder / CHARGED)
