"""Progress of the trainer as events."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import Event, Report


class ReportSteps(TrainerCallback):
    """Reports each optimizer step with loss, speed and the time that is left."""

    def __init__(self, report: Report, *, total_tokens: int) -> None:
        self._report = report
        self._total_tokens = total_tokens
        self._started = time.monotonic()

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started = time.monotonic()
        self._report(Event(action="train.started", message=f"{state.max_steps} steps"))

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
        done = state.global_step / state.max_steps
        seconds = time.monotonic() - self._started
        fields = {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "loss": round(float(logs["loss"]), 4),
            "learning_rate": logs.get("learning_rate"),
            "tokens_per_s": round(done * self._total_tokens / seconds, 1),
            "eta_s": round(seconds * (1 - done) / done, 1),
        }
        message = f"step {state.global_step}/{state.max_steps}, loss {fields['loss']}"
        self._report(Event(action="train.step", message=message, fields=fields))
