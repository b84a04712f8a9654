"""Stages that do nothing."""

from __future__ import annotations

from pathlib import Path

from nss_train.contract import Report, Request, Stage, StageResult


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:  # noqa: ARG001
    return StageResult(stage=Stage.PREPARE_DATA)


def load_model(folder: Path, request: Request, *, report: Report) -> StageResult:  # noqa: ARG001
    (folder / "out" / "model").mkdir()
    (folder / "out" / "model" / "manifest.json").write_text('{"files": {}}')
    return StageResult(stage=Stage.LOAD_MODEL, model_digest="0" * 64)


def train(folder: Path, request: Request, *, report: Report) -> StageResult:  # noqa: ARG001
    return StageResult(stage=Stage.TRAIN)


def save_model(folder: Path, request: Request, *, report: Report) -> StageResult:  # noqa: ARG001
    return StageResult(stage=Stage.SAVE_MODEL)
