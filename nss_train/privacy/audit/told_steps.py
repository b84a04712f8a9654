"""A test of whether a private training's events, and their times, distinguish its steps."""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from scipy import stats

from nss_train.contract import CHARGE, CHARGED, CHECKPOINT_SAVED, TRAIN_STEP, Event
from nss_train.privacy.evidence.likelihood import Floats
from nss_train.privacy.observables import LISTED, Kind

TOLD = ("train.started", TRAIN_STEP, CHECKPOINT_SAVED, CHARGE)
"""Events that name the step they follow; a charge names the step up to which it pays."""
PUBLISHED = tuple(action for action in TOLD if action in LISTED[Kind.EVENT])
"""The ones that readers of the results see. The others leave traces under ``private/`` alone."""
_DIGITS = 6
"""Digits after the point of a duration in seconds."""


@dataclass(kw_only=True, slots=True)
class Watcher:
    """An observer of a train stage's events, which pays for its steps as a supervisor does."""

    folder: Path
    now: Callable[[], float] = time.monotonic
    sees: Collection[str] = PUBLISHED
    """Events whose times are visible."""
    seen: list[tuple[int, float]] = field(default_factory=list)
    """Pairs of a number of finished steps and the time of its report."""
    events: list[Event] = field(default_factory=list)
    _paid: int = 0

    def take(self, event: Event) -> None:
        """Note the time; record charges."""
        self.events.append(event)
        if event.action in self.sees:
            # The paid steps are done when more are requested.
            done = self._paid if event.action == CHARGE else int(event.fields["step"])
            self.seen.append((done, self.now()))
        if event.action == CHARGE:
            self._paid = int(event.fields["steps"])
            (self.folder / CHARGED).write_text(str(self._paid), encoding="utf-8")

    def durations(self, steps: int) -> Floats:
        """Return each step's apparent duration: the time between reports, divided evenly; shape (steps,)."""
        first: dict[int, float] = {}
        for step, at in self.seen:
            first.setdefault(step, at)
        known = sorted(first)
        times = np.interp(np.arange(steps + 1), known, [first[step] for step in known])
        # Of equal durations, a rounding would make one the longer.
        return np.round(np.diff(times), _DIGITS)


@dataclass(frozen=True, kw_only=True, slots=True)
class Told:
    """How well an observer distinguishes steps; an area of 0.5 and a correlation of 0 mean not at all."""

    steps: int
    with_target: int
    """Number of steps that drew the target."""
    tellings: int
    correlation: float
    """Correlation of apparent durations with the numbers of units drawn."""
    area: float
    """AUC of distinguishing the steps that draw a target from the others, by apparent duration."""


def told(watcher: Watcher, drawn: Sequence[int], has_target: Sequence[bool]) -> Told:
    """Compare what the events reveal with what was drawn."""
    durations = watcher.durations(len(drawn))
    with_target = np.asarray(has_target)
    area = 0.5
    if with_target.any() and not with_target.all():
        found = stats.mannwhitneyu(durations[with_target], durations[~with_target])
        area = float(found.statistic) / (with_target.sum() * (~with_target).sum())
    is_flat = np.ptp(durations) == 0 or np.ptp(drawn) == 0
    return Told(
        steps=len(drawn),
        with_target=int(with_target.sum()),
        tellings=len({step for step, _ in watcher.seen}),
        correlation=0.0 if is_flat else float(np.corrcoef(durations, drawn)[0, 1]),
        area=area,
    )
