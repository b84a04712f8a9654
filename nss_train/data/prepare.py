"""The whole preparation of a table, in the order of an NSS run."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import Choice, Resolved, resolve, unit_column
from nss_train.contract import Event, Report, Request, Stage, StageResult, TableLimits
from nss_train.data import columns, time_series
from nss_train.data.assembly import Assembled, Assembler
from nss_train.data.distinct import Column, distinct_columns, to_arrow
from nss_train.data.examples import Examples, Prompt
from nss_train.data.holdout import Split, hold_out
from nss_train.data.outputs import write
from nss_train.data.packing import check_lengths
from nss_train.data.records import Records, tokenize
from nss_train.data.schema import make_schema
from nss_train.data.source import read_table
from nss_train.data.statistics import Running
from nss_train.data.time_series import PSEUDO_GROUP
from nss_train.model.metadata import ModelMetadata, family_of, read_metadata
from nss_train.model.source import find_model
from nss_train.model.tokenizer import ModelTokenizer, load_tokenizer

if TYPE_CHECKING:
    from nss_train.privacy.plan import PrivacyPlan

logger = logging.getLogger(__name__)

DATASET_DIGITS = 32
"""Hex digits of a table's SHA-256 that name its budget when the config names none."""


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
    table: pa.Table
    """The training split as it is written into records."""
    columns: Sequence[Column]
    """Those of ``table`` that stand in records."""
    training: pd.DataFrame
    """The training split as it was read."""
    test: pd.DataFrame | None
    records: Records
    train: Examples
    validation: Examples | None
    assembled: Assembled
    data_fraction: float
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


def run(folder: Path, request: Request, *, report: Report) -> StageResult:
    """The prepare_data stage."""
    source = folder / "in" / "source"
    model = find_model(
        request.config.training.pretrained_model, request.policy, fetched=source if source.exists() else None
    )
    report(Event(action="prepare.started", message=f"preparing {request.dataset_name}"))
    table = folder / "in" / str(request.table)
    prepared = prepare(
        table,
        request.config,
        model=model.folder,
        seed=request.seed,
        stated_family=request.family,
        limits=request.limits,
    )
    figures = write(folder / "out", prepared, request)
    counted = "units" if "units" in figures else "examples"
    report(Event(action="prepare.done", message=f"{figures[counted]} {counted}", fields=figures))
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def prepare(
    table: Path,
    config: SafeSynthesizerParameters,
    *,
    model: Path,
    seed: int,
    entry: Entry = Entry.PROCESS_DATA,
    stated_family: str = "",
    limits: TableLimits | None = None,
) -> Prepared:
    """Prepare a table for a model in a local folder.

    Raises :class:`~nss_train.errors.DataError`, :class:`~nss_train.errors.ParameterError` or
    :class:`~nss_train.errors.GenerationError` with all that is wrong with table, config or lengths.
    """
    training, test = read_table(table, limits), None
    if entry is Entry.PROCESS_DATA:
        columns.check_columns(training)
        columns.check_rows(training, config)
        columns.check_roles(training, config)
        unit = unit_column(config) if config.dp_enabled else None
        split = hold_out(training, config.data, unit_column=unit)
        training, test = split.train, split.test
    split = Split(train=training, test=test)
    return prepare_split(
        split, config, model=model, seed=seed, stated_family=stated_family, dataset=_digest(table)
    )


def _digest(table: Path) -> str:
    with table.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:DATASET_DIGITS]


def prepare_split(
    split: Split,
    config: SafeSynthesizerParameters,
    *,
    model: Path,
    seed: int,
    stated_family: str = "",
    dataset: str = "",
) -> Prepared:
    """Prepare a training split that is in memory; raises what :func:`prepare` raises.

    ``dataset`` names whose privacy budget it is; without a name it is that of these very rows.
    """
    family = family_of(config.training.pretrained_model, model, stated=stated_family)
    resolved = resolve(config, split.train, family=family)
    columns.warn_of_size(split.train, resolved.config)
    columns.check_roles(split.train, resolved.config)
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(resolved.config, model=model, tokenizer=tokenizer, family=family)
    return assemble(split, resolved, metadata, tokenizer, seed=seed, dataset=dataset)


def assemble(
    split: Split,
    resolved: Resolved,
    metadata: ModelMetadata,
    tokenizer: ModelTokenizer,
    *,
    seed: int,
    dataset: str = "",
) -> Prepared:
    """Everything from the resolved config on: series, schema, records, packing."""
    config, frame = resolved.config, split.train
    if config.time_series.is_timeseries:
        series = time_series.process(frame, config)
        config, frame = series.config, series.frame
        metadata = replace(metadata, timeseries=series.metadata.as_json())
    table = to_arrow(frame)
    written = distinct_columns(table.drop_columns([c for c in table.column_names if c == PSEUDO_GROUP]))
    columns.warn_of_dates(written)
    schema_prompt = metadata.prompt([column.name for column in written])
    schema_ids = tokenizer.encode(schema_prompt)
    prompt = Prompt.of(schema_ids, metadata)
    records = tokenize(written, tokenizer)
    budget = check_lengths(len(schema_ids), records.lengths, metadata)
    assembled = Assembler(
        table=table,
        lengths=records.lengths,
        config=config,
        metadata=metadata,
        budget=budget,
        prompt_tokens=len(prompt.ids),
        schema_tokens=len(schema_ids),
        seed=seed,
    ).assemble()
    schema, chosen, plan = _publish(written, assembled, config, frame, dataset)
    train = Examples.of(prompt, records, assembled.train)
    validation = None if assembled.validation is None else Examples.of(prompt, records, assembled.validation)
    return Prepared(
        config=config,
        choices=(*resolved.choices, *chosen),
        metadata=_counted(metadata, train, assembled, config),
        schema=schema,
        schema_prompt=schema_prompt,
        schema_prompt_tokens=len(schema_ids),
        table=table,
        columns=written,
        training=split.train,
        test=split.test,
        records=records,
        train=train,
        validation=validation,
        assembled=assembled,
        data_fraction=assembled.fraction,
        plan=plan,
    )


def _publish(
    written: Sequence[Column],
    assembled: Assembled,
    config: SafeSynthesizerParameters,
    frame: pd.DataFrame,
    dataset: str,
) -> tuple[Mapping[str, Any], tuple[Choice, ...], PrivacyPlan | None]:
    """The schema with how it came about and, under differential privacy, the plan of the job."""
    if assembled.membership is None:
        return make_schema(written), (), None
    from nss_train.privacy.publication import publish  # the accountant takes a second to load

    found = publish(
        written,
        assembled.membership,
        config,
        passes=assembled.fraction,
        dataset=dataset or _digest_of(frame),
    )
    return found.schema, found.choices, found.plan


def _digest_of(frame: pd.DataFrame) -> str:
    return hashlib.sha256(frame.to_csv(index=False).encode()).hexdigest()[:DATASET_DIGITS]


def _counted(
    metadata: ModelMetadata, train: Examples, assembled: Assembled, config: SafeSynthesizerParameters
) -> ModelMetadata:
    """The metadata with what generation has to know of the examples: public limits when that is private."""
    if config.strictly_private:
        return replace(metadata, max_tokens_per_example=metadata.max_seq_length)
    return replace(
        metadata,
        max_tokens_per_example=int(train.tokens_per_example.max()),
        max_records_per_group=assembled.max_records_per_group,
        timeseries_group_values=assembled.group_values,
    )
