"""The reports of a running private training and their times: nothing that depends on a step's draw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import TRAIN_STEP, Event, Report
from nss_train.training.reports.callbacks import report_start

MOST_MARKS = 20
"""Most marks of a training, its start and its end included."""
APART_S = 30.0
"""Least seconds between marks: many steps of most trainings, so that none is seen alone."""
APART_STEPS = 100
"""Least steps between marks. The time of k steps correlates with that of one of them by 1/√k. Of two steps in
different intervals it tells the longer with probability 1/2 + asin(1/√k)/π if times are Gaussian (Kendall's
τ is 2/π · asin ρ): always with k = 1, 0.55 with 41, 0.53 with 100. A record that makes a step half as long
again shows more: 50 told its steps with an AUC of 0.56, 100 with 0.53 (200 steps, test_audit_steps.py)."""
BLOCKS = 20
"""Number of blocks that a training pays for at once: a lost machine costs 5% of the steps at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """The steps after which something may be reported. They follow from public numbers alone."""

    steps: int
    block: int
    """Steps that are paid for at once."""
    every: int
    """Steps between two marks, whole blocks."""
    step_s: float
    """Seconds per step, as measured on invented units."""

    @classmethod
    def of(cls, steps: int, *, step_s: float) -> Marks:
        """Return the marks of a training of ``steps`` steps."""
        block = max(1, steps // BLOCKS)
        apart = max(APART_STEPS, math.ceil(APART_S / step_s))
        # The start is a mark too.
        blocks = math.ceil(max(apart / block, steps / block / (MOST_MARKS - 1)))
        return cls(steps=steps, block=block, every=block * blocks, step_s=step_s)

    def until(self, last: int) -> Marks:
        """Return the marks of a training that cannot go on after step ``last``."""
        return replace(self, steps=min(self.steps, last))

    def at(self, step: int) -> bool:
        """Tell whether ``step`` is a mark; the last step is, and none shortly before it."""
        return step >= self.steps or (step % self.every == 0 and step + self.every <= self.steps)

    def ends_block(self, step: int) -> bool:
        """Tell whether all paid steps are done."""
        return step % self.block == 0

    def paid_up_to(self, step: int) -> int:
        """Return the number of paid steps once the one after ``step`` is paid for."""
        return min(self.steps, (step // self.block + 1) * self.block)

    def left_s(self, step: int) -> float:
        """Return the expected seconds of the remaining steps."""
        return (self.steps - step) * self.step_s


class ReportMarks(TrainerCallback):
    """A callback that reports the start and each mark, with ε and the remaining time by public numbers."""

    def __init__(self, report: Report, *, now: Callable[[], float] = time.monotonic) -> None:
        self._report, self._now = report, now
        self._told_at, self._mark = -math.inf, 0
        self.marks: Marks | None = None
        """Marks of the training; set once it has measured invented units."""

    def ends_block(self, step: int) -> bool:
        """Tell whether the state may be saved after ``step`` steps, where only workers see when."""
        return self.marks is not None and self.marks.ends_block(step)

    def may_end(self, step: int) -> bool:
        """Tell whether the training may end early after ``step`` steps, which everybody sees."""
        # Without a mark before it, the end tells no more than how long the training took.
        return self.ends_block(step) and (self._mark == 0 or self._is_apart(step))

    def _is_apart(self, step: int) -> bool:
        """Tell whether the last mark is far; an attempt may have begun between two. The same on all ranks."""
        return step - self._mark >= APART_STEPS

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        # The step at which an attempt was stopped would tell how many were taken until then.
        report_start(self._report, state.global_step - state.global_step % APART_STEPS, of=state.max_steps)
        self._told_at, self._mark = self._now(), state.global_step

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        if self.marks is None or "epsilon" not in (logs or {}):
            return
        is_last = state.global_step >= self.marks.steps
        if not is_last and not self._is_apart(state.global_step):
            return
        self._mark = state.global_step
        # The real steps may be faster than the measured ones.
        if not is_last and self._now() - self._told_at < APART_S:
            return
        self._told_at = self._now()
        of_step = {name: round(value, 6) for name, value in (logs or {}).items() if name != "epoch"}
        fields = {"step": state.global_step, "total_steps": state.max_steps} | of_step
        fields["eta_s"] = round(self.marks.left_s(state.global_step), 1)
        message = f"step {state.global_step}/{state.max_steps}, ε ≤ {of_step['epsilon']:.3f}"
        self._report(Event(action=TRAIN_STEP, message=message, fields=fields))
