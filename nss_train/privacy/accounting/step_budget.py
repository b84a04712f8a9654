"""Payment for steps before they are taken, recorded where the loss of a machine cannot erase it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Protocol

from nss_train.contract import CHARGE, CHARGED, Event, Report
from nss_train.privacy.accounting.plan import PrivacyPlan

_POLL_S = 0.002


class StepRecorder(Protocol):
    """The record of an attempt's private steps, which outlives the attempt."""

    def put(self, steps: int) -> None:
        """Return once it is recorded that this attempt took ``steps`` steps."""


class NullRecorder:
    """The recorder of a training that is never resumed: a lost one starts over."""

    def put(self, steps: int) -> None:
        """Record nothing: nothing outlives this process."""


class SupervisedRecorder:
    """A recorder that asks the supervisor of this process, which confirms steps in a file."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._file = folder / CHARGED
        self._report = report

    def put(self, steps: int) -> None:
        """Ask, and wait without a limit; the supervisor ends a process that should not wait any longer."""
        self._report(Event(action=CHARGE, fields={"steps": steps}))
        while self._on_record() < steps:
            time.sleep(_POLL_S)

    def _on_record(self) -> int:
        return int(self._file.read_text(encoding="utf-8")) if self._file.is_file() else 0


class StepBudget:
    """The steps that a plan allows. Steps of lost attempts are spent, although their updates are lost.

    Several are paid for at once, so that the time of payment reveals nothing about a single step.
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
        """Return the number of steps paid for, over all attempts."""
        return self._charged + self._paid

    @property
    def left(self) -> int:
        """Return the number of steps that can still be paid for."""
        return self._most - self.steps

    def take(self, *, ahead: int) -> bool:
        """Take one step; pay for ``ahead`` of them first when all paid ones are taken.

        Pays for fewer where fewer stay within ε; returns ``False``, and takes none, when none does.
        """
        if self._taken == self._paid:
            paid = self._paid + min(ahead, self.left)
            if paid <= self._paid:
                return False
            self._record.put(paid)
            self._paid = paid
        self._taken += 1
        return True

    def leave(self) -> None:
        """Record that the steps that are paid for but not taken will never be taken."""
        if self._taken < self._paid:
            self._paid = self._taken
            self._record.put(self._paid)
