"""The cost of a private job: its plan, its steps on record before they are taken, its settlement."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train.contract import CHARGED, KEPT_DRAW
from nss_train.extras import require
from tasks.jobs import versioning
from tasks.jobs.documents import Charge, JobRequest, Outcome
from tasks.jobs.keys import Keys
from tasks.store.base import Store

if TYPE_CHECKING:
    from tasks.jobs.privacy.ledger import DatasetLedger

ACCOUNTANT = "dp_accounting"
"""Package of the extra ``private``; it is not part of a client's installation."""


def open_ledger(store: Store, dataset: str) -> DatasetLedger:
    """Return a dataset's ledger; raise :class:`NotInstalled` where the accountant is not installed."""
    require(ACCOUNTANT)
    from tasks.jobs.privacy.ledger import DatasetLedger

    return DatasetLedger(store, dataset)


class Charges:
    """The private steps of one job in the store. They outlive the attempts that took them."""

    def __init__(self, store: Store, job_id: str) -> None:
        self._store = store
        self._keys = Keys(job_id)
        self._job_id = job_id

    def reserve(self, plan: dict[str, Any]) -> None:
        """Set aside what a plan costs in its dataset's ledger; idempotent.

        Raises :class:`~nss_train.errors.BudgetExceeded` when there is not enough left.
        """
        require(ACCOUNTANT)
        from nss_train.privacy.accounting.plan import PrivacyPlan

        found = PrivacyPlan.model_validate(plan)
        # First, so that the ledger is found for the settlement even if this worker dies right after.
        self._store.write(self._keys.privacy_plan, found.model_dump_json(indent=1).encode())
        open_ledger(self._store, found.dataset).reserve(self._job_id, found, request=self._request())

    def keep_draw(self, price: dict[str, Any], proposed: bytes) -> bytes:
        """Put on record what prepare_data drew, paid for beforehand; return what is on record.

        Later callers get the first draw: a second would reveal more than is paid for.
        """
        kept = self.draw()
        if kept is None:
            self.reserve(price)
            self._store.put_if_absent(self._keys.draw, proposed)
            kept = self._store.read(self._keys.draw)
        return kept

    def draw(self) -> bytes | None:
        """Return the draw that is on record, if any. By-products are charged from then on."""
        try:
            return self._store.read(self._keys.draw)
        except KeyError:
            return None

    def begin(self, attempt: int) -> int:
        """Return the steps on record of all other attempts, before this one takes its first.

        Older releases look for charges in another folder: what they find there makes them leave the job to
        this one, instead of counting too few steps.
        """
        self._write(self._keys.old_charge(attempt), Charge(attempt=attempt, steps=0))
        return self.taken(except_by=attempt)

    def record(self, attempt: int, steps: int) -> None:
        """Put on record that an attempt takes this many steps, the next included."""
        self._write(self._keys.charge(attempt), Charge(attempt=attempt, steps=steps))

    def taken(self, *, except_by: int | None = None) -> int:
        """Return the steps on record of all attempts, or of all but one, in whichever release."""
        folders = (self._keys.charges, self._keys.old_charges)
        charges = [self._charge(key) for folder in folders for key in self._store.list(folder)]
        return sum(charge.steps for charge in charges if charge.attempt != except_by)

    def settle(self, outcome: Outcome, *, by_products: bool = False) -> None:
        """Charge the ended job what it ran; idempotent. A job that is not private is left alone.

        By-products are charged if a draw is on record, or because the caller says so. The outcome exists
        already, and a charge or a draw is put on record before its writer looks for the outcome: the sum here
        is all that was done, or more.
        """
        try:
            plan = json.loads(self._store.read(self._keys.privacy_plan))
        except KeyError:
            return
        ledger = open_ledger(self._store, plan["dataset"])
        drawn = by_products or self.draw() is not None
        ledger.settle(self._job_id, outcome=outcome, steps=self.taken(), by_products=drawn)

    def _request(self) -> JobRequest | None:
        try:
            key = self._keys.request
            return versioning.read(JobRequest, self._store.read(key), what=f"The store's {key}")
        except KeyError:
            return None

    def _write(self, key: str, charge: Charge) -> None:
        self._store.write(key, charge.model_dump_json().encode())

    def _charge(self, key: str) -> Charge:
        return versioning.read(Charge, self._store.read(key), what=f"The store's {key}")


def allow(folder: Path, steps: int) -> None:
    """Report to the stage that works in a folder how many of its private steps are on record."""
    _place(folder / CHARGED, str(steps).encode())


def hand_over(folder: Path, draw: bytes) -> None:
    """Give the stage that works in a folder the draw that is on record."""
    _place(folder / KEPT_DRAW, draw)


def _place(file: Path, content: bytes) -> None:
    aside = file.with_name(f".{file.name}.part")
    aside.write_bytes(content)
    aside.replace(file)
