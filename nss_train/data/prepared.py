"""All that a table becomes, whichever way it was prepared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import Choice
from nss_train.data.assembly.assembler import Assembled
from nss_train.data.assembly.statistics import Running
from nss_train.data.examples import Examples
from nss_train.data.tokenization.distinct_values import Column
from nss_train.data.tokenization.records import Records
from nss_train.model.metadata import ModelMetadata

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan


class Entry(StrEnum):
    """Where a run begins: with the whole table, or with a training split that is made already."""

    PROCESS_DATA = "process_data"
    BACKEND = "backend"


@dataclass(frozen=True, kw_only=True, slots=True)
class Prepared:
    """All that a table becomes."""

    config: SafeSynthesizerParameters
    choices: tuple[Choice, ...]
    metadata: ModelMetadata
    schema: Mapping[str, Any]
    schema_prompt: str
    schema_prompt_tokens: int
    table: pa.Table | None
    """The training split as it is written into records; ``None`` under differential privacy."""
    columns: Sequence[Column]
    """What stands in records."""
    training: pd.DataFrame | None
    """The training split as it was read; ``None`` where none of it may be shown."""
    test: pd.DataFrame | None
    records: Records
    train: Examples
    validation: Examples | None
    assembled: Assembled
    data_fraction: float
    warnings: tuple[str, ...] = ()
    """What a person should know of how the table was read; of a private table nothing."""
    read_as: str = ""
    """How the table's file was read; empty of a private one, and where there was no file."""
    typical_record_tokens: int = 0
    """Of a private table: what a record takes by the names and types of its columns alone."""
    plan: PrivacyPlan | None = None
    """Under differential privacy; then ``assembled.membership`` tells whose the examples are."""

    @property
    def records_train(self) -> int:
        return self.assembled.records_train

    @property
    def units_train(self) -> int:
        """Records, or groups when they are kept together."""
        return self.assembled.units_train

    @property
    def statistics(self) -> dict[str, Running]:
        return {
            "tokens_per_record": Running.of(self.records.lengths),
            **self.train.statistics(),
            **self.assembled.statistics,
        }
