"""The layout of tokenized records as examples, by the kind of table: plain, grouped, time series."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.data.assembly.groups import Groups, find_groups, group_order, pack_groups, split_groups
from nss_train.data.assembly.layout import Layout, Order
from nss_train.data.assembly.packing import (
    ValidationSplit,
    check_validation_ratio,
    pack,
    requested_fraction,
    split_validation,
    training_order,
)
from nss_train.data.assembly.statistics import Running
from nss_train.data.assembly.windows import pack_windows, window_order
from nss_train.errors import ParameterError, Problem
from nss_train.model.metadata import ModelMetadata

if TYPE_CHECKING:
    from nss_train.privacy.units import Membership

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembled:
    """The layouts of examples, and the facts about them."""

    train: Layout
    validation: Layout | None
    fraction: float
    """Number of passes over the training records."""
    records_train: int
    units_train: int
    """Number of records, or of groups if they are kept together."""
    described: Order
    """Records that NSS lists as its dataset, in NSS's order."""
    statistics: Mapping[str, Running] = field(default_factory=dict)
    max_records_per_group: int | None = None
    group_values: tuple[Any, ...] | None = None
    membership: Membership | None = None
    """Units that the examples belong to; only under differential privacy."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Assembler:
    """The inputs of the assembly, for every kind of table."""

    table: pa.Table
    lengths: Numbers
    """Tokens of each record."""
    config: SafeSynthesizerParameters
    metadata: ModelMetadata
    budget: int
    """Most tokens of an example's records."""
    prompt_tokens: int
    schema_tokens: int
    seed: int

    def assemble(self) -> Assembled:
        """Split, shuffle and pack the records."""
        if self.config.time_series.is_timeseries:
            return self._windows()
        if self.config.data.group_training_examples_by is not None:
            return self._groups()
        return self._records()

    @property
    def _most(self) -> int | None:
        """Return the most records or groups of an example; ``None`` for as many as fit."""
        return self.metadata.max_sequences_per_example or None

    def _fraction(self, records: int) -> float:
        return requested_fraction(self.config.training.num_input_records_to_sample, records)

    def _records(self) -> Assembled:
        split = split_validation(len(self.lengths), self.config.training.validation_ratio, seed=self.seed)
        rng = np.random.default_rng(self.seed)
        fraction = self._fraction(len(split.train))

        def plan(rows: Order, passes: float) -> Layout:
            order = rows[training_order(len(rows), passes, rng)]
            return pack(order, self.lengths, budget=self.budget, max_records=self._most)

        train = plan(split.train, fraction)
        return Assembled(
            train=train,
            validation=None if split.validation is None else plan(split.validation, 1.0),
            fraction=fraction,
            records_train=len(split.train),
            units_train=len(split.train),
            described=np.arange(len(self.lengths)),
        )

    def _groups(self) -> Assembled:
        split = self._split_groups()
        rng = np.random.default_rng(self.seed)
        groups = self._find_groups(split.train)
        fraction = self._fraction(len(groups.rows))
        train = self._pack_groups(groups, group_order(groups, fraction, rng))
        validation = None
        if split.validation is not None:
            held = self._find_groups(split.validation)
            validation = self._pack_groups(held, group_order(held, 1.0, rng))
        return Assembled(
            train=train,
            validation=validation,
            fraction=fraction,
            records_train=len(groups.rows),
            units_train=len(groups),
            described=split.train,
            max_records_per_group=int(groups.sizes.max()),
            statistics=of_groups(groups, train),
        )

    def _pack_groups(self, groups: Groups, chosen: Numbers) -> Layout:
        return pack_groups(
            groups,
            chosen,
            prompt_tokens=self.prompt_tokens,
            schema_tokens=self.schema_tokens,
            max_groups=self._most,
            metadata=self.metadata,
        )

    def _find_groups(self, rows: Order) -> Groups:
        data = self.config.data
        return find_groups(
            self.table,
            rows,
            self.lengths,
            group_by=str(data.group_training_examples_by),
            order_by=data.order_training_examples_by,
        )

    def _split_groups(self) -> ValidationSplit:
        everything = np.arange(len(self.lengths), dtype=np.int64)
        ratio = self.config.training.validation_ratio
        if ratio == 0:
            return ValidationSplit(train=everything, validation=None)
        keys = self.table.column(str(self.config.data.group_training_examples_by)).to_pandas()
        return split_groups(keys, ratio, seed=self.seed)

    def _windows(self) -> Assembled:
        split = self._split_series()
        rng = np.random.default_rng(self.seed)
        groups = self._find_groups(split.train)
        fraction = self._fraction(len(groups.rows))
        order = window_order(groups, fraction)
        train = self._pack_windows(groups, order, rng)
        validation = None
        if split.validation is not None:
            held = self._find_groups(split.validation)
            validation = self._pack_windows(held, window_order(held, 1.0), None)
        firsts = train.rows[train.sequences[:-1]]
        group_of = np.empty(len(self.lengths), dtype=np.int64)
        group_of[groups.rows] = np.repeat(np.arange(len(groups)), groups.sizes)
        windows = np.bincount(group_of[firsts])
        return Assembled(
            train=train,
            validation=validation,
            fraction=fraction,
            records_train=len(groups.rows),
            units_train=len(groups.rows),
            described=self._find_groups(np.arange(len(self.lengths), dtype=np.int64)).rows,
            group_values=self._group_values(groups),
            statistics={"examples_per_group": Running.of(windows[windows > 0])},
        )

    def _pack_windows(self, groups: Groups, order: Order, rng: np.random.Generator | None) -> Layout:
        return pack_windows(groups, order, self.lengths, budget=self.budget, max_records=self._most, rng=rng)

    def _split_series(self) -> ValidationSplit:
        """Split by groups; a single series is split by time, its end for validation (NSS fails there)."""
        ratio = self.config.training.validation_ratio
        if ratio > 0:
            check_validation_ratio(len(self.lengths), ratio)
        keys = self.table.column(str(self.config.data.group_training_examples_by)).to_pandas()
        if ratio == 0 or keys.nunique() > 1:
            return self._split_groups()
        rows = np.arange(len(self.lengths), dtype=np.int64)
        kept = len(rows) - max(1, round(len(rows) * ratio))
        if kept < 1:
            remedy = f"it leaves none of {len(rows)} records to train on; use a smaller share"
            problem = Problem(field="training.validation_ratio", value=ratio, remedy=remedy)
            raise ParameterError("The validation split takes the whole series.", [problem])
        return ValidationSplit(train=rows[:kept], validation=rows[kept:])

    def _group_values(self, groups: Groups) -> tuple[Any, ...]:
        """Return the distinct group values of the training records, in training order."""
        column = self.table.column(str(self.config.data.group_training_examples_by))
        values = column.take(pa.array(groups.rows[groups.offsets[:-1]])).to_pylist()
        wrong = [value for value in values if not isinstance(value, str | int | float | bool)]
        if wrong:
            remedy = "group values must be text or numbers; convert the column"
            field_ = "data.group_training_examples_by"
            raise ParameterError(
                "Group values of a time series must be JSON.",
                [Problem(field=field_, value=str(wrong[0]), remedy=remedy)],
            )
        return tuple(values)


def of_groups(groups: Groups, train: Layout) -> dict[str, Running]:
    """Return the statistics of groups: their tokens, records and number per example."""
    return {
        "tokens_per_group": Running.of(groups.tokens),
        "records_per_group": Running.of(groups.sizes),
        "groups_per_example": Running.of(train.sequences_per_example),
    }
