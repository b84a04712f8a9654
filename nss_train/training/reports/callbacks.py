"""Callbacks of the running trainer: progress as events, a last evaluation, a time limit."""

from __future__ import annotations

import time
from collections.abc import Callable

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import TRAIN_STEP, Event, Report
from nss_train.training.ranks.group import agreed

INCOMPLETE = "training_incomplete"
"""NSS's key in the history of a run that ended before its last step."""


def report_start(report: Report, done: int, *, of: int) -> None:
    """Report that a training of so many steps begins, or resumes after ``done`` of them."""
    message = f"resuming after step {done}" if done else f"{of} steps"
    fields = {"step": done, "total_steps": of}
    report(Event(action="train.started", message=message, fields=fields))


class ReportSteps(TrainerCallback):
    """A callback that reports the start and each optimizer step, with loss, speed and remaining time."""

    def __init__(self, report: Report, *, total_tokens: int) -> None:
        self._report, self._total_tokens = report, total_tokens
        self._started, self._first = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._started, self._first = time.monotonic(), state.global_step
        report_start(self._report, state.global_step, of=state.max_steps)

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: object,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        done = (state.global_step - self._first) / state.max_steps
        share_per_s = done / (time.monotonic() - self._started)
        loss = round(float(logs["loss"]), 4)
        fields = {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "eta_s": round((1 - state.global_step / state.max_steps) / share_per_s, 1),
            "loss": loss,
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_s": round(share_per_s * self._total_tokens, 1),
        }
        message = f"step {state.global_step}/{state.max_steps}, loss {loss}"
        self._report(Event(action=TRAIN_STEP, message=message, fields=fields))


class EvaluateAtEnd(TrainerCallback):
    """A callback that evaluates after the last step too: even the shortest run has a validation loss."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class TimeLimit(TrainerCallback):
    """A callback that ends the training early, without an error, after a number of seconds."""

    def __init__(self, seconds: float, *, may_end: Callable[[int], bool] = lambda _step: True) -> None:
        """Set the limit; ``may_end`` tells after which steps the clock is checked."""
        self._seconds, self._may_end = seconds, may_end
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.global_step >= state.max_steps or not self._may_end(state.global_step):
            return
        if agreed(time.monotonic() - self._started >= self._seconds):
            stop(state, control, "max_seconds")


def stop(state: TrainerState, control: TrainerControl, reason: str) -> None:
    """End the training early; write the reason to the history under NSS's key."""
    control.should_training_stop = True
    state.log_history.append({INCOMPLETE: reason})  # type: ignore[dict-item]
