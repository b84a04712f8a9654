"""Checkpoints of a training: saved on the way, handed over, and resumed from."""

from __future__ import annotations

import hashlib
import json
import logging
import time
from collections.abc import Callable
from pathlib import Path

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from nss_train.contract import (
    CHECKPOINT_MANIFEST,
    CHECKPOINT_SAVED,
    CHECKPOINTS,
    DRAIN,
    CheckpointPolicy,
    Event,
    Report,
)
from nss_train.training.ranks.group import agreed, wait_for_all

logger = logging.getLogger(__name__)


class Checkpoints(TrainerCallback):
    """A callback that saves the state of a training when due, and when the stage is asked to stop.

    Rank 0 decides, and every rank does the same after the same step. A checkpoint holds adapter,
    optimizer, schedule, the random generators of every rank and the trainer's state with its history.
    It is complete once its manifest exists.
    """

    def __init__(self, folder: Path, policy: CheckpointPolicy, report: Report) -> None:
        self._folder = folder
        self._policy = policy
        self._report = report
        self._kept_at = time.monotonic()
        self._kept_step = 0
        self.drained = False
        self.may_follow_the_clock: Callable[[int], bool] = lambda _step: True
        """Steps after which ``every_s`` may save the state; it waits for the next of them."""

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._kept_at, self._kept_step = time.monotonic(), state.global_step

    def on_step_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        if state.global_step >= state.max_steps:
            return  # the training's results are about to be written
        self.drained = agreed((self._folder / DRAIN).exists())
        if self.drained:
            control.should_training_stop = True
        if self.drained or agreed(self._is_due(state)):
            control.should_save = True

    def on_save(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **_: object
    ) -> None:
        self._kept_at, self._kept_step = time.monotonic(), state.global_step
        wait_for_all()
        if state.is_world_process_zero:
            self._hand_over(Path(str(args.output_dir)), state.global_step)

    def _is_due(self, state: TrainerState) -> bool:
        steps, seconds = self._policy.every_steps, self._policy.every_s
        if steps is not None and state.global_step - self._kept_step >= steps:
            return True
        if not self.may_follow_the_clock(state.global_step):
            return False
        return seconds is not None and time.monotonic() - self._kept_at >= seconds

    def _hand_over(self, output: Path, step: int) -> None:
        made = output / f"{PREFIX_CHECKPOINT_DIR}-{step}"
        write_manifest(made, step)
        target = self._folder / CHECKPOINTS / str(step)
        target.parent.mkdir(exist_ok=True)
        made.rename(target)
        logger.info("kept the state after step %d", step, extra={"action": CHECKPOINT_SAVED, "step": step})
        message = f"state after step {step}"
        self._report(Event(action=CHECKPOINT_SAVED, message=message, fields={"step": step}))


def step_of(folder: Path) -> int:
    """Return the number of optimizer steps before a checkpoint."""
    return int(json.loads((folder / CHECKPOINT_MANIFEST).read_text(encoding="utf-8"))["step"])


def write_manifest(folder: Path, step: int) -> None:
    """Write a manifest with the SHA-256 and size of every file of a checkpoint."""
    files = {}
    for path in sorted(p for p in folder.rglob("*") if p.is_file()):
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        files[path.relative_to(folder).as_posix()] = {"sha256": digest, "bytes": path.stat().st_size}
    document = {"step": step, "files": files}
    (folder / CHECKPOINT_MANIFEST).write_text(json.dumps(document, indent=1), encoding="utf-8")
