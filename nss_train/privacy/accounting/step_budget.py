"""Steps are paid for before they are taken, and put on record where a machine's loss cannot erase them."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from nss_train.contract import CHARGE, CHARGED, Event, Report
from nss_train.privacy.accounting.plan import PrivacyPlan

_POLL_S = 0.002


class StepRecorder(Protocol):
    """Where the private steps of an attempt are kept, out of reach of what may end it."""

    def put(self, steps: int) -> None:
        """Return when it is on record that this attempt took ``steps`` steps."""


class NullRecorder:
    """Of a training that nobody goes on with: a lost one is done again from its beginning."""

    def put(self, steps: int) -> None:
        """Nothing outlives this process."""


class SupervisedRecorder:
    """The supervisor of this process puts steps on record, and says so in a file."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._file = folder / CHARGED
        self._report = report

    def put(self, steps: int) -> None:
        """Ask, and wait for as long as it takes: who stops waiting is ended from outside."""
        self._report(Event(action=CHARGE, fields={"steps": steps}))
        while self._on_record() < steps:
            time.sleep(_POLL_S)

    def _on_record(self) -> int:
        return int(self._file.read_text(encoding="utf-8")) if self._file.is_file() else 0


class StepBudget:
    """The steps that a plan affords. Those of lost attempts are spent, although nothing is left of them.

    Several are paid for at once, so that when they are paid says nothing of a single one.
    """

    def __init__(self, plan: PrivacyPlan, *, charged: int, record: StepRecorder) -> None:
        self._plan = plan
        self._most = plan.steps  # as many as its dataset's ledger has reserved
        self._charged = charged
        self._record = record
        self._paid = 0
        self._taken = 0

    @property
    def steps(self) -> int:
        """Steps that are paid for, over all attempts."""
        return self._charged + self._paid

    def take(self, *, ahead: int) -> bool:
        """Take one step, and pay for ``ahead`` of them when none is paid for yet.

        Fewer are paid for where fewer stay within ε; ``False`` when none does, and then none is taken.
        """
        if self._taken == self._paid:
            paid = self._paid + min(ahead, self._most - self.steps)
            if paid <= self._paid:
                return False
            self._record.put(paid)
            self._paid = paid
        self._taken += 1
        return True

    def leave(self) -> None:
        """Put on record that the steps that are paid for and were not taken will not be taken any more."""
        if self._taken < self._paid:
            self._paid = self._taken
            self._record.put(self._paid)
