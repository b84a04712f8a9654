"""The whole preparation of a table, in the order of an NSS run."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import Choice, Resolved, resolve
from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.data import columns, time_series
from nss_train.data.assembly import Assembled, Assembler
from nss_train.data.distinct import Column, distinct_columns, to_arrow
from nss_train.data.examples import Examples, Prompt
from nss_train.data.holdout import Split, hold_out
from nss_train.data.packing import check_lengths
from nss_train.data.records import Records, tokenize
from nss_train.data.schema import make_schema
from nss_train.data.source import read_table
from nss_train.data.statistics import Running
from nss_train.data.time_series import PSEUDO_GROUP
from nss_train.model.metadata import ModelMetadata, family_of, read_metadata
from nss_train.model.source import find_model
from nss_train.model.tokenizer import ModelTokenizer, load_tokenizer

logger = logging.getLogger(__name__)


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
        table, request.config, model=model.folder, seed=request.seed, stated_family=request.family
    )
    figures = write(folder / "out", prepared, request)
    report(Event(action="prepare.done", message=f"{figures['examples']} examples", fields=figures))
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def prepare(
    table: Path,
    config: SafeSynthesizerParameters,
    *,
    model: Path,
    seed: int,
    entry: Entry = Entry.PROCESS_DATA,
    stated_family: str = "",
) -> Prepared:
    """Prepare a table for a model in a local folder.

    Raises :class:`~nss_train.errors.DataError`, :class:`~nss_train.errors.ParameterError` or
    :class:`~nss_train.errors.GenerationError` with all that is wrong with table, config or lengths.
    """
    training, test = read_table(table), None
    if entry is Entry.PROCESS_DATA:
        columns.check_columns(training)
        columns.check_rows(training, config)
        columns.check_roles(training, config)
        split = hold_out(training, config.data)
        training, test = split.train, split.test
    return prepare_split(
        Split(train=training, test=test), config, model=model, seed=seed, stated_family=stated_family
    )


def prepare_split(
    split: Split, config: SafeSynthesizerParameters, *, model: Path, seed: int, stated_family: str = ""
) -> Prepared:
    """Prepare a training split that is in memory; raises what :func:`prepare` raises."""
    family = family_of(config.training.pretrained_model, model, stated=stated_family)
    resolved = resolve(config, split.train, family=family)
    columns.warn_of_size(split.train, resolved.config)
    columns.check_roles(split.train, resolved.config)
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(resolved.config, model=model, tokenizer=tokenizer, family=family)
    return assemble(split, resolved, metadata, tokenizer, seed=seed)


def assemble(
    split: Split, resolved: Resolved, metadata: ModelMetadata, tokenizer: ModelTokenizer, *, seed: int
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
    train = Examples.of(prompt, records, assembled.train)
    validation = None if assembled.validation is None else Examples.of(prompt, records, assembled.validation)
    return Prepared(
        config=config,
        choices=resolved.choices,
        metadata=_counted(metadata, train, assembled),
        schema=make_schema(written),
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
    )


def _counted(metadata: ModelMetadata, train: Examples, assembled: Assembled) -> ModelMetadata:
    """The metadata with what generation has to know of the examples."""
    return replace(
        metadata,
        max_tokens_per_example=int(train.tokens_per_example.max()),
        max_records_per_group=assembled.max_records_per_group,
        timeseries_group_values=assembled.group_values,
    )


def write(out: Path, prepared: Prepared, request: Request) -> dict[str, Any]:
    """Write everything that the later stages read; return the figures worth showing."""
    metadata = prepared.metadata.as_json(dataset_name=request.dataset_name, run_name=request.job_id)
    choices = [{"name": c.name, "value": c.value, "reason": c.reason} for c in prepared.choices]
    statistics = {name: series.as_json() for name, series in prepared.statistics.items()}
    documents = {
        "config": prepared.config.model_dump(mode="json"),
        "choices": choices,
        "schema": prepared.schema,
        "metadata": metadata,
        "statistics": statistics,
    }
    for name, document in documents.items():
        (out / f"{name}.json").write_text(json.dumps(document, indent=4), encoding="utf-8")
    prepared.train.write(out / "train.arrow")
    if prepared.validation is not None:
        prepared.validation.write(out / "validation.arrow")
    prepared.training.to_csv(out / "training.csv", index=False)
    if prepared.test is not None:
        prepared.test.to_csv(out / "test.csv", index=False)
    return {
        "rows": len(prepared.training),
        "rows_held_out": 0 if prepared.test is None else len(prepared.test),
        "columns": len(prepared.columns),
        "examples": len(prepared.train),
        "validation_examples": 0 if prepared.validation is None else len(prepared.validation),
        "tokens": int(statistics["tokens_per_example"]["mean"] * len(prepared.train) + 0.5),
        "data_fraction": prepared.data_fraction,
        "seed": request.seed,
    }
