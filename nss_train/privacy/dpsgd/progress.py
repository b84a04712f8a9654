"""What may be told of a private training while it runs, and when: nothing that follows a step's draw."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import TRAIN_STEP, Event, Report
from nss_train.training.callbacks import report_start

MOST_MARKS = 20
"""Of a training, its start and its end included."""
APART_S = 30.0
"""Between marks: many steps of most trainings, so that none is seen alone."""
BLOCKS = 20
"""Parts of a training that are paid for at once: a machine that is lost costs 5% of the steps at most."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Marks:
    """After which steps something may be told. They follow from public numbers alone."""

    steps: int
    block: int
    """Steps that are paid for at once."""
    every: int
    """Steps between two marks, whole blocks."""
    step_s: float
    """What a step takes, as measured on invented units."""

    @classmethod
    def of(cls, steps: int, *, step_s: float) -> Marks:
        """Those of a training of so many steps."""
        block = max(1, steps // BLOCKS)
        # The start is a mark too.
        blocks = max(math.ceil(steps / block / (MOST_MARKS - 1)), math.ceil(APART_S / (block * step_s)))
        return cls(steps=steps, block=block, every=block * blocks, step_s=step_s)

    def at(self, step: int) -> bool:
        """Whether it is a mark to have done so many steps; the last one is, and none shortly before it."""
        return step >= self.steps or (step % self.every == 0 and step + self.every <= self.steps)

    def ends_block(self, step: int) -> bool:
        """Whether all steps that are paid for are done."""
        return step % self.block == 0

    def paid_up_to(self, step: int) -> int:
        """Steps that are paid for once the one after ``step`` is."""
        return min(self.steps, (step // self.block + 1) * self.block)

    def left_s(self, step: int) -> float:
        """Seconds that the rest takes."""
        return (self.steps - step) * self.step_s


class ReportMarks(TrainerCallback):
    """Reports the start and each mark with ε and the time that is left by public numbers."""

    def __init__(self, report: Report, *, now: Callable[[], float] = time.monotonic) -> None:
        self._report, self._now = report, now
        self._told_at = -math.inf
        self.marks: Marks | None = None
        """Known when the training has measured invented units."""

    def is_mark(self, step: int) -> bool:
        """Whether something may be told after so many steps."""
        return self.marks is not None and self.marks.at(step)

    def ends_block(self, step: int) -> bool:
        """Whether the training may end after so many steps."""
        return self.marks is not None and self.marks.ends_block(step)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        report_start(self._report, state)
        self._told_at = self._now()

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
        # What was measured may be slower than what is done.
        if self._now() - self._told_at < APART_S and state.global_step < state.max_steps:
            return
        self._told_at = self._now()
        of_step = {name: round(value, 6) for name, value in (logs or {}).items() if name != "epoch"}
        fields = {"step": state.global_step, "total_steps": state.max_steps} | of_step
        fields["eta_s"] = round(self.marks.left_s(state.global_step), 1)
        message = f"step {state.global_step}/{state.max_steps}, ε ≤ {of_step['epsilon']:.3f}"
        self._report(Event(action=TRAIN_STEP, message=message, fields=fields))
