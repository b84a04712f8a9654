"""The whole preparation of a table, in the order of an NSS run."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import Choice, Resolved, resolve
from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.data import columns
from nss_train.data.examples import Examples, Prompt
from nss_train.data.holdout import Split, hold_out
from nss_train.data.packing import check_lengths, pack, requested_fraction, split_validation, training_order
from nss_train.data.records import Records, arrow_round_trip, tokenize
from nss_train.data.schema import make_schema
from nss_train.data.source import read_table
from nss_train.data.statistics import Running
from nss_train.model.metadata import ModelMetadata, read_metadata
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
    frame: pd.DataFrame
    training: pd.DataFrame
    """The training split as it was read, before the types of ``frame``."""
    test: pd.DataFrame | None
    records: Records
    train: Examples
    validation: Examples | None
    data_fraction: float
    records_train: int

    @property
    def statistics(self) -> dict[str, Running]:
        return {"tokens_per_record": Running.of(self.records.lengths.tolist()), **self.train.statistics()}


def run(folder: Path, request: Request, *, report: Report) -> StageResult:
    """The prepare_data stage."""
    source = folder / "in" / "source"
    model = find_model(
        request.config.training.pretrained_model, request.policy, fetched=source if source.exists() else None
    )
    report(Event(action="prepare.started", message=f"preparing {request.dataset_name}"))
    table = folder / "in" / str(request.table)
    prepared = prepare(table, request.config, model=model.folder, seed=request.seed)
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
) -> Prepared:
    """Prepare a table for a model in a local folder.

    Raises :class:`~nss_train.errors.DataError`, :class:`~nss_train.errors.ParameterError` or
    :class:`~nss_train.errors.GenerationError` with all that is wrong with table, config or lengths.
    """
    columns.check_config(config)
    training, test = read_table(table), None
    if entry is Entry.PROCESS_DATA:
        columns.check_columns(training)
        columns.check_rows(training, config)
        split = hold_out(training, config.data)
        training, test = split.train, split.test
    resolved = resolve(config, training)
    columns.warn_of_size(training, resolved.config)
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(resolved.config, model=model, tokenizer=tokenizer)
    frame = arrow_round_trip(training)
    return _assemble(
        resolved, metadata, tokenizer, frame=frame, split=Split(train=training, test=test), seed=seed
    )


def _assemble(
    resolved: Resolved,
    metadata: ModelMetadata,
    tokenizer: ModelTokenizer,
    *,
    frame: pd.DataFrame,
    split: Split,
    seed: int,
) -> Prepared:
    config = resolved.config
    schema_prompt = metadata.prompt([str(column) for column in frame.columns])
    schema_ids = tokenizer.encode(schema_prompt)
    prompt = Prompt.of(schema_ids, metadata)
    records = tokenize(frame, tokenizer)
    budget = check_lengths(len(schema_ids), records.lengths, metadata)
    sides = split_validation(len(records), config.training.validation_ratio, seed=seed)
    fraction = requested_fraction(config.training.num_input_records_to_sample, len(sides.train))
    rng = np.random.default_rng(seed)

    def examples(rows: np.ndarray[Any, np.dtype[np.int64]], passes: float) -> Examples:
        order = rows[training_order(len(rows), passes, rng)]
        plan = pack(
            order, records.lengths, budget=budget, max_records=metadata.max_sequences_per_example or None
        )
        return Examples(prompt=prompt, records=records, plan=tuple(plan))

    train = examples(sides.train, fraction)
    validation = None if sides.validation is None else examples(sides.validation, 1.0)
    longest = math.ceil(train.statistics()["tokens_per_example"].max)
    return Prepared(
        config=config,
        choices=resolved.choices,
        metadata=metadata.with_max_tokens(longest),
        schema=make_schema(frame),
        schema_prompt=schema_prompt,
        schema_prompt_tokens=len(schema_ids),
        frame=frame,
        training=split.train,
        test=split.test,
        records=records,
        train=train,
        validation=validation,
        data_fraction=fraction,
        records_train=len(sides.train),
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
        "columns": len(prepared.frame.columns),
        "examples": len(prepared.train),
        "validation_examples": 0 if prepared.validation is None else len(prepared.validation),
        "tokens": int(statistics["tokens_per_example"]["mean"] * len(prepared.train) + 0.5),
        "data_fraction": prepared.data_fraction,
        "seed": request.seed,
    }
