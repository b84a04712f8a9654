"""The steps of a training under benchmarks.train, timed alike for ours and the reference's."""

from __future__ import annotations

import hashlib
import itertools
import resource
import statistics
import time
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments


class Steps(TrainerCallback):
    """A callback that takes the time of each optimizer step and ends the training after ``most``."""

    def __init__(self, *, most: int) -> None:
        self._most = most
        self._began: float | None = None
        self._began_cpu = self._ended_cpu = 0.0
        self._ends: list[float] = []
        self._tokens: list[int] = []
        self._taken = 0

    def take(self, tokens: int) -> None:
        """Count tokens of examples, without padding, that the running step computes."""
        self._taken += tokens

    def on_step_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if self._began is None:
            # What came before is the setup, and what was computed in it a trial.
            self._began, self._taken = time.perf_counter(), 0
            self._began_cpu = time.process_time()

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._ends.append(time.perf_counter())
        self._ended_cpu = time.process_time()
        self._tokens.append(self._taken)
        if len(self._ends) >= self._most:
            control.should_training_stop = True

    def figures(self, log_history: Sequence[dict[str, Any]]) -> dict[str, Any]:
        """Return speed and losses."""
        import torch

        if self._began is None:
            raise RuntimeError("no step was taken")
        seconds, tokens = self._ends[-1] - self._began, self._tokens[-1]
        each = [later - earlier for earlier, later in itertools.pairwise([self._began, *self._ends])]
        return {
            "steps": len(each),
            "tokens": tokens,
            "seconds": round(seconds, 2),
            "median_step_s": round(statistics.median(each), 3),
            "tokens_per_s": round(tokens / seconds, 1),
            "tokens_per_cpu_s": round(tokens / (self._ended_cpu - self._began_cpu), 1),
            "losses": [round(entry["loss"], 4) for entry in log_history if "loss" in entry],
            "threads": torch.get_num_threads(),
            "peak_mib": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024,
        }


def digest(examples: Iterable[Iterable[int]]) -> str:
    """Return a digest of the examples' tokens, whatever their order."""
    each = sorted(hashlib.sha256(np.asarray(ids, dtype=np.int32).tobytes()).digest() for ids in examples)
    return hashlib.sha256(b"".join(each)).hexdigest()[:16]
