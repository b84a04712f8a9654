"""A stage that takes a gigabyte."""

from __future__ import annotations

from pathlib import Path

from nss_train.contract import Report, Request, Stage, StageResult


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    bytearray(2**30)
    return StageResult(stage=Stage.PREPARE_DATA)
