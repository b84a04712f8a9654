"""Checks of a table's rows and columns before anything expensive."""

from __future__ import annotations

import logging

import pandas as pd

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.support import unsupported
from nss_train.errors import DataError, ParameterError, Problem

logger = logging.getLogger(__name__)

MIN_ROWS = 200
SMALL_ROWS = 1000
MANY_TIMES = 5


def check_config(config: SafeSynthesizerParameters) -> None:
    """Raise :class:`ParameterError` for tables that this version cannot prepare."""
    problems = unsupported(config)
    if problems:
        raise ParameterError("The config asks for what this version cannot do.", problems)


def check_columns(frame: pd.DataFrame) -> None:
    """Raise :class:`DataError` naming every column that nothing can be learned from."""
    remedy = "the column holds nothing but nulls; remove it or fill it"
    problems = [
        Problem(field=str(column), value=None, remedy=remedy)
        for column in frame.columns
        if frame[column].isna().all()
    ]
    if problems:
        raise DataError("The table has empty columns.", problems)


def check_rows(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> None:
    """NSS's check of the number of rows, under NSS's name ``dataset.size``."""
    if len(frame) >= MIN_ROWS or "dataset.size" in config.preflight.disabled_checks:
        return
    remedy = f"at least {MIN_ROWS} are needed; add rows, or list dataset.size under preflight.disabled_checks"
    raise DataError("The table is too small.", [Problem(field="rows", value=len(frame), remedy=remedy)])


def warn_of_size(frame: pd.DataFrame, config: SafeSynthesizerParameters) -> None:
    """Log what NSS's preflight warns of: few rows, and rows that are seen many times."""
    if len(frame) < SMALL_ROWS:
        logger.warning(
            "the training split has %d rows; more would help", len(frame), extra={"action": "data.small"}
        )
    wanted = config.training.num_input_records_to_sample
    if isinstance(wanted, int) and wanted > MANY_TIMES * len(frame):
        fields = {"action": "data.oversampled"}
        logger.warning("each of %d rows is seen %.1f times", len(frame), wanted / len(frame), extra=fields)
