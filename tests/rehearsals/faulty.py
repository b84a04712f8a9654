"""Stages that do nothing, and trainings that go wrong in the way that a job's base model names."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

from benchmarks.noop_stages import load_model, prepare_data, save_model
from nss_train.contract import Report, Request, Stage, StageResult
from nss_train.errors import GenerationError, OutOfMemory

SLOW_S, STUCK_S = 40.0, 3600.0

__all__ = ["load_model", "prepare_data", "save_model", "train"]


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    match request.config.training.pretrained_model:
        case "slow":
            time.sleep(SLOW_S)
        case "stuck":
            time.sleep(STUCK_S)
        case "failing":
            raise GenerationError("The records do not fit the model.")
        case "hungry":
            raise OutOfMemory("Out of memory, as this rehearsal wants it.")
        case "leaky":
            # A mount cannot be removed with its folder.
            (folder / "mount").mkdir()
            subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder / "mount")], check=True)
    return StageResult(stage=Stage.TRAIN)
