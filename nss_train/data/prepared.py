"""The result of preparing a table, in whichever way."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.data.assembly.assembler import Assembled
from nss_train.data.assembly.statistics import Running
from nss_train.data.auto_values import Choice
from nss_train.data.examples import Examples
from nss_train.data.tokenization.distinct_values import Column
from nss_train.data.tokenization.records import Records
from nss_train.model.metadata import ModelMetadata

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan


class Entry(StrEnum):
    """The start of a run: the whole table, or a training split that exists already."""

    PROCESS_DATA = "process_data"
    BACKEND = "backend"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """The result of preparing a table."""

    config: SafeSynthesizerParameters
    choices: tuple[Choice, ...]
    metadata: ModelMetadata
    schema: Mapping[str, Any]
    schema_prompt: str
    schema_prompt_tokens: int
    table: pa.Table | None
    """The training split as it is written into records; ``None`` under differential privacy."""
    columns: Sequence[Column]
    """Columns of the records."""
    training: pd.DataFrame | None
    """The training split as it was read; ``None`` if none of it may be shown."""
    test: pd.DataFrame | None
    records: Records
    train: Examples
    validation: Examples | None
    assembled: Assembled
    data_fraction: float
    warnings: tuple[str, ...] = ()
    """Notes for people on how the table was read; empty for a private table."""
    read_as: str = ""
    """Description of how the table's file was read; empty for a private table, or without a file."""
    typical_record_tokens: int = 0
    """Tokens of a typical record of a private table, from the names and types of its columns alone."""
    plan: PrivacyPlan | None = None
    """Privacy plan, under differential privacy; then ``assembled.membership`` gives each example's unit."""

    @property
    def records_train(self) -> int:
        return self.assembled.records_train

    @property
    def units_train(self) -> int:
        """Return the number of records, or of groups if they are kept together."""
        return self.assembled.units_train

    @property
    def statistics(self) -> dict[str, Running]:
        return {
            "tokens_per_record": Running.of(self.records.lengths),
            **self.train.statistics(),
            **self.assembled.statistics,
        }
