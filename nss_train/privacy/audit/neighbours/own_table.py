"""The audit of a user's own table: random neighbours of it go through the real stages."""

from __future__ import annotations

import random
from collections import Counter
from pathlib import Path
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.contract import ModelPolicy, Request
from nss_train.data.auto_values import unit_column
from nss_train.errors import DataError, ParameterError, Problem
from nss_train.privacy.audit.neighbours.edits import draw
from nss_train.privacy.audit.neighbours.invented import remembered_plans
from nss_train.privacy.audit.neighbours.replay import Case, replay
from nss_train.privacy.audit.neighbours.tables import read_table_file

PAIRS = 100
SEED = 1
"""Seed of the edits, so that a repeated audit compares the same neighbours."""


def audit_table(
    path: Path, config: SafeSynthesizerParameters, *, models: Path, pairs: int = PAIRS
) -> dict[str, Any]:
    """Compare a table with neighbours of it, with the real accountant.

    Raises :class:`~nss_train.errors.ParameterError` where the config asks for no privacy, and
    :class:`~nss_train.errors.DataError` where there is nothing to edit.
    """
    if not config.dp_enabled:
        problem = Problem(field="privacy.dp_enabled", value=False, remedy="set it to true")
        raise ParameterError("The config asks for no privacy.", [problem])
    if not path.is_file():
        raise DataError(
            "The table cannot be read.", [Problem(field="table", value=path.name, remedy="no such file")]
        )
    table, chance = read_table_file(path, multiline=config.guarantee.multiline_cells), random.Random(SEED)  # noqa: S311  # nosec B311 - it chooses edits
    edits = tuple(draw(table, unit_column(config), chance) for _ in range(pairs))
    request = Request(
        job_id="audit", table=path.name, config=config, seed=1, policy=ModelPolicy(models_dir=str(models))
    )
    with remembered_plans():
        found = replay([Case(table=table, request=request, edits=edits, noisy_count=None)])
    return found.as_json() | {"edits": dict(Counter(edit.kind.value for edit in edits))}
