"""A stage that takes a gigabyte, or all the time there is, or is ended by a library."""

from __future__ import annotations

import os
import re
from pathlib import Path

from nss_train.contract import Report, Request, Stage, StageResult


def prepare_data(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Do what ``dataset_name`` says."""
    match request.dataset_name:
        case "memory":
            bytearray(2**30)
        case "expression":
            re.fullmatch("(a+)+b", "a" * 60)
        case "abort":
            os.abort()
    return StageResult(stage=Stage.PREPARE_DATA)
