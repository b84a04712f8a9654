"""The rows that are held out from training."""

from __future__ import annotations

from dataclasses import dataclass

import pandas as pd
from sklearn.model_selection import train_test_split

from nss_train.config.sections.data import DataParameters
from nss_train.data.assembly.groups import split_groups
from nss_train.data.columns import check_groupby_column
from nss_train.errors import DataError, ParameterError, Problem

MIN_HOLDOUT_ROWS = 10
MIN_TABLE_ROWS = 200


@dataclass(frozen=True, kw_only=True, slots=True)
class Split:
    """A table's training rows and, if any are held out, the rest."""

    train: pd.DataFrame
    test: pd.DataFrame | None


def hold_out(frame: pd.DataFrame, config: DataParameters) -> Split:
    """Split at random by ``holdout`` (a share if below 1, else a number of rows), seeded by ``random_state``.

    Groups are never cut. As in NSS, the number of rows is then used as a number of groups.
    """
    if config.holdout == 0 or config.max_holdout == 0:
        return Split(train=frame, test=None)
    if len(frame) < MIN_TABLE_ROWS:
        remedy = f"a holdout needs at least {MIN_TABLE_ROWS} rows; set data.holdout to 0 or add rows"
        problem = Problem(field="rows", value=len(frame), remedy=remedy)
        raise DataError("Dataset must have at least 200 records to use holdout.", [problem])
    wanted = len(frame) * config.holdout if config.holdout < 1 else config.holdout
    rows = int(min(wanted, config.max_holdout))
    if not MIN_HOLDOUT_ROWS <= rows < len(frame):
        remedy = (
            f"this holds out {rows} of {len(frame)} rows; take at least {MIN_HOLDOUT_ROWS}, or 0 for none"
        )
        problem = Problem(field="data.holdout", value=config.holdout, remedy=remedy)
        raise ParameterError("The holdout has the wrong size.", [problem])
    if config.group_training_examples_by is not None:
        return _by_group(frame, rows, config)
    train, test = train_test_split(frame, test_size=rows, random_state=config.random_state)
    return Split(train=train.reset_index(drop=True), test=test.reset_index(drop=True))


def _by_group(frame: pd.DataFrame, rows: int, config: DataParameters) -> Split:
    group = config.group_training_examples_by
    check_groupby_column(frame, group)
    found = split_groups(frame[group], rows, seed=config.random_state)
    if found.validation is None:
        return Split(train=frame, test=None)
    parts = (frame.iloc[rows].reset_index(drop=True) for rows in (found.train, found.validation))
    train, test = parts
    return Split(train=train, test=test)
