"""What may be told of a private training while it runs: nothing that was not paid for."""

from __future__ import annotations

import time
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from nss_train.contract import Event, Report


class ReportPrivateSteps(TrainerCallback):
    """Reports each step with ε, expected speed and the time that is left."""

    def __init__(self, report: Report, *, batch: int) -> None:
        self._report = report
        self._batch = batch
        self._started, self._first = time.monotonic(), 0

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: Any
    ) -> None:
        self._started, self._first = time.monotonic(), state.global_step
        message = f"{state.max_steps} private steps" if not self._first else f"going on after {self._first}"
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
        if logs is None or "epsilon" not in logs:
            return
        done, left = state.global_step - self._first, state.max_steps - state.global_step
        seconds = time.monotonic() - self._started
        fields = {
            "step": state.global_step,
            "total_steps": state.max_steps,
            "units_per_s": round(done * self._batch / seconds, 1),
            "eta_s": round(seconds * left / done, 1),
            **{name: round(value, 6) for name, value in logs.items() if name != "epoch"},
        }
        message = f"step {state.global_step}/{state.max_steps}, ε ≤ {logs['epsilon']:.3f}"
        self._report(Event(action="train.step", message=message, fields=fields))
