"""Stages that do nothing, except for a training that takes a while."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.noop_stages import load_model, prepare_data, save_model
from nss_train.contract import Report, Request, Stage, StageResult

TRAIN_S = 8.0

__all__ = ["load_model", "prepare_data", "save_model", "train"]


def train(folder: Path, request: Request, *, report: Report) -> StageResult:  # noqa: ARG001
    time.sleep(TRAIN_S)
    return StageResult(stage=Stage.TRAIN)
