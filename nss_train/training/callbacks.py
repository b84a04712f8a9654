"""What happens while the trainer runs: progress as events, a last evaluation, a limit of time."""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import TRAIN_STEP, Event, Report
from nss_train.training.group import agreed

INCOMPLETE = "training_incomplete"
"""NSS's key in the history of a run that did not train all it should have."""


class Progress(TrainerCallback, ABC):
    """Reports the start of the training and each optimizer step, with the time that is left."""

    def __init__(self, report: Report) -> None:
        self._report = report
        self._started, self._first = time.monotonic(), 0

    @abstractmethod
    def describe(self, logs: dict[str, float], *, share_per_s: float) -> tuple[str, dict[str, Any]] | None:
        """A step in words and its fields; ``None`` for a log of something else.

        ``share_per_s`` is the part of the whole training that is done in a second.
        """

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
        done = (state.global_step - self._first) / state.max_steps
        share_per_s = done / (time.monotonic() - self._started)
        described = self.describe(logs or {}, share_per_s=share_per_s)
        if described is None:
            return
        words, of_step = described
        fields = {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "eta_s": round((1 - state.global_step / state.max_steps) / share_per_s, 1),
        }
        message = f"step {state.global_step}/{state.max_steps}, {words}"
        self._report(Event(action=TRAIN_STEP, message=message, fields=fields | of_step))


class ReportSteps(Progress):
    """Reports each optimizer step with loss and speed."""

    def __init__(self, report: Report, *, total_tokens: int) -> None:
        super().__init__(report)
        self._total_tokens = total_tokens

    def describe(self, logs: dict[str, float], *, share_per_s: float) -> tuple[str, dict[str, Any]] | None:
        if "loss" not in logs:
            return None
        loss = round(float(logs["loss"]), 4)
        return f"loss {loss}", {
            "loss": loss,
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_s": round(share_per_s * self._total_tokens, 1),
        }


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
