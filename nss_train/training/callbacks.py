"""What happens while the trainer runs: progress as events, a last evaluation, a limit of time."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import Event, Report
from nss_train.training.group import agreed

INCOMPLETE = "training_incomplete"
"""NSS's key in the history of a run that did not train all it should have."""


class ReportSteps(TrainerCallback):
    """Reports each optimizer step with loss, speed and the time that is left."""

    def __init__(self, report: Report, *, total_tokens: int) -> None:
        self._report = report
        self._total_tokens = total_tokens
        self._started, self._first = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started, self._first = time.monotonic(), state.global_step
        message = f"{state.max_steps} steps" if not self._first else f"going on after step {self._first}"
        fields = {"step": self._first, "total_steps": state.max_steps}
        self._report(Event(action="train.started", message=message, fields=fields))

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **_: Any,
    ) -> None:
        if logs is None or "loss" not in logs:
            return
        done = (state.global_step - self._first) / state.max_steps
        left = 1 - state.global_step / state.max_steps
        seconds = time.monotonic() - self._started
        fields = {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "loss": round(float(logs["loss"]), 4),
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_s": round(done * self._total_tokens / seconds, 1),
            "eta_s": round(seconds * left / done, 1),
        }
        message = f"step {state.global_step}/{state.max_steps}, loss {fields['loss']}"
        self._report(Event(action="train.step", message=message, fields=fields))


class EvaluateAtEnd(TrainerCallback):
    """Evaluates after the last step too, so that even the shortest run has a validation loss."""

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        if state.global_step >= state.max_steps:
            control.should_evaluate = True


class TimeLimit(TrainerCallback):
    """Ends the training in good order after a number of seconds."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        late = agreed(time.monotonic() - self._started >= self._seconds)
        if late and state.global_step < state.max_steps:
            stop(state, control, "max_seconds")


def stop(state: TrainerState, control: TrainerControl, reason: str) -> None:
    """End the training early; the reason stands in the history under NSS's key."""
    control.should_training_stop = True
    state.log_history.append({INCOMPLETE: reason})  # type: ignore[dict-item]
