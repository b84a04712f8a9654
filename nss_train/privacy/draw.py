"""All that prepare_data draws at random about a table, and how it comes to be drawn once in a job.

Two draws of one count tell more than one does. So a draw is kept out of reach of what may end its process
before anybody sees it, and every later attempt works with the draw that is kept.
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
    """What noise allows to say of a column."""

    how: str
    """For people: ``bounds``, ``3 categories``, or ``type`` where it allows nothing."""
    reason: str
    categories: tuple[Any, ...] | None = None
    minimum: float | None = None
    maximum: float | None = None


class Draw(Frozen):
    """Noisy counts and a noisy schema. With it and the holdout key, prepare_data is deterministic."""

    effective: int
    """Units with a record that counts; less than none by chance."""
    idle: int | None = None
    """Units whose records all count for nothing, where n does not tell."""
    columns: Mapping[str, DrawnColumn] = {}
    """Those that ε is spent on."""


class DrawKeeper(Protocol):
    """Where a draw is kept."""

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:
        """Pay and keep, unless the job has a draw already; return the one that is kept."""


class InMemory:
    """For a process that nobody goes on with: its draw is the only one."""

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:  # noqa: ARG002 (nobody keeps a ledger)
        """Return the same draw."""
        return draw


class SupervisorsDraw:
    """The supervisor of this process pays for a draw, puts it on record and hands back what is there."""

    def __init__(self, folder: Path, report: Report) -> None:
        self._folder = folder
        self._report = report

    def keep(self, draw: Draw, *, price: PrivacyPlan) -> Draw:
        """Ask, and wait for as long as it takes: who stops waiting is ended from outside."""
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
