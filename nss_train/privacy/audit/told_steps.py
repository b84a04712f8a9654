"""Do the events of a private training, and when they come, tell the steps apart?"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from nss_train.contract import CHARGE, CHARGED, CHECKPOINT_SAVED, TRAIN_STEP, Event
from nss_train.privacy.audit.evidence import Floats

TOLD = (TRAIN_STEP, CHECKPOINT_SAVED, "train.started")
"""Events that say after which step they come; a charge says up to which it pays."""


@dataclass(kw_only=True, slots=True)
class Watcher:
    """Takes the events of a train stage as they come, and pays for its steps as a supervisor does."""

    folder: Path
    now: Callable[[], float] = time.monotonic
    seen: list[tuple[int, float]] = field(default_factory=list)
    """A number of steps that are done, and when that was told."""
    events: list[Event] = field(default_factory=list)
    _paid: int = 0

    def take(self, event: Event) -> None:
        """Note the time; put charges on record."""
        self.events.append(event)
        if event.action == CHARGE:
            # What was paid for is done when more is asked for.
            self.seen.append((self._paid, self.now()))
            self._paid = int(event.fields["steps"])
            (self.folder / CHARGED).write_text(str(self._paid), encoding="utf-8")
        elif event.action in TOLD:
            self.seen.append((int(event.fields["step"]), self.now()))

    def durations(self, steps: int) -> Floats:
        """How long each step seems to take: the time between tellings, shared evenly; shape (steps,)."""
        first: dict[int, float] = {}
        for step, at in self.seen:
            first.setdefault(step, at)
        known = sorted(first)
        return np.diff(np.interp(np.arange(steps + 1), known, [first[step] for step in known]))


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How well an observer tells steps apart; an area of 0.5 and a correlation of 0 is not at all."""

    steps: int
    tellings: int
    correlation: float
    """Of supposed durations with the drawn numbers."""
    area: float
    """AUC of telling the steps that draw a target from the others, by their supposed durations."""


def told(watcher: Watcher, drawn: Sequence[int], has_target: Sequence[bool]) -> Told:
    """Compare what the events say with what was drawn."""
    durations = watcher.durations(len(drawn))
    with_target = np.asarray(has_target)
    area = 0.5
    if with_target.any() and not with_target.all():
        found = stats.mannwhitneyu(durations[with_target], durations[~with_target])
        area = float(found.statistic) / (with_target.sum() * (~with_target).sum())
    is_flat = np.ptp(durations) < 1e-9 or np.ptp(drawn) == 0
    return Told(
        steps=len(drawn),
        tellings=len({step for step, _ in watcher.seen}),
        correlation=0.0 if is_flat else float(np.corrcoef(durations, drawn)[0, 1]),
        area=area,
    )
