"""The random draw of prepare_data about a table, made once per job.

Two draws of one count reveal more than one. Therefore a draw is kept where it outlives its process before
it is used, and every later attempt works with the kept draw.
"""

from __future__ import annotations

import os
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from nss_train.contract import DRAW, KEPT_DRAW, PROPOSED_DRAW, Event, Frozen, Report

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan

_POLL_S = 0.01


class DrawnColumn(Frozen):
    """The noisy description of a column."""

    how: str
    """Kind of description, for people: ``bounds``, ``3 categories``, or ``type`` for none."""
    reason: str
    categories: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class Draw(Frozen):
    """Noisy counts and a noisy schema. With it and the holdout key, prepare_data is deterministic."""

    effective: int
    """Noisy number of units with an effect; may be negative by chance."""
    idle: int | None = None
    """Noisy number of units without effect, where it does not follow from n."""
    columns: Mapping[str, DrawnColumn] = {}
    """The columns that ε is spent on."""


class DrawKeeper(Protocol):
    """A keeper of the job's draw."""

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:
        """Pay for the draw and keep it, unless the job has one already; return the kept one."""


class InMemory:
    """A keeper for a process that is never resumed: its draw is the only one."""

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:  # noqa: ARG002 (there is no ledger)
        """Return the same draw."""
        return draw


class SupervisorsDraw:
    """A keeper that asks the supervisor to pay for a draw, record it and return the recorded one."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:
        """Ask, and wait without a limit; the supervisor ends a process that should not wait any longer."""
        _write_aside(self._folder / PROPOSED_DRAW, draw.model_dump_json())
        self._report(Event(action=DRAW, fields={"price": price.model_dump(mode="json")}))
        kept = self._folder / KEPT_DRAW
        while not kept.is_file():
            time.sleep(_POLL_S)
        return Draw.model_validate_json(kept.read_bytes())


def _write_aside(path: Path, text: str) -> None:
    aside = path.with_suffix(".part")
    with aside.open("w", encoding="utf-8") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    aside.replace(path)
