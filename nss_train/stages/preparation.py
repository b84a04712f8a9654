"""The whole preparation of a table, in the order of an NSS run."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.ignored import ignored
from nss_train.config.sections.reading import Types
from nss_train.contract import HOLDOUT_KEY, Event, Report, Request, Stage, StageResult, TableLimits
from nss_train.data import columns
from nss_train.data.assembly import time_series
from nss_train.data.assembly.assembler import Assembled, Assembler
from nss_train.data.assembly.holdout import Split, hold_out
from nss_train.data.assembly.packing import check_lengths
from nss_train.data.assembly.time_series import PSEUDO_GROUP
from nss_train.data.auto_values import Resolved, resolve, unit_column
from nss_train.data.comparison.changes import check_dates
from nss_train.data.examples import Examples, Prompt
from nss_train.data.outputs import write
from nss_train.data.prepared import Entry, Prepared
from nss_train.data.private.fingerprint import leave_sketch
from nss_train.data.private.reading import read_private_table
from nss_train.data.schema import make_schema
from nss_train.data.source import read_source
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.data.tokenization.records import tokenize
from nss_train.errors import public_facts
from nss_train.extras import needed_by, require_extras
from nss_train.model.local.known import memory_of
from nss_train.model.local.source import find_model, read_config
from nss_train.model.metadata import ModelMetadata, family_of, read_metadata, warnings_of_family
from nss_train.model.tokenizer import ModelTokenizer, load_tokenizer
from nss_train.privacy.coins import HoldoutKey
from nss_train.privacy.draw import InMemory, SupervisorsDraw

logger = logging.getLogger(__name__)


def run(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Run the prepare_data stage."""
    source = folder / "in" / "source"
    name, fetched = request.config.training.pretrained_model, source if source.exists() else None
    with public_facts():
        model = find_model(name, request.policy, fetched=fetched, memory=memory_of(request, fetched))
    report(Event(action="prepare.started", message=f"preparing {request.dataset_name}"))
    if request.config.dp_enabled:
        with public_facts():
            prepared = _prepare_private(folder, request, model.folder, report)
    else:
        prepared = _prepare(folder, request, model.folder)
    figures = write(folder / "out", prepared, request, model=read_config(model.folder))
    counted = "units" if "units" in figures else "examples"
    report(Event(action="prepare.done", message=f"{figures[counted]} {counted}", fields=figures))
    return StageResult(stage=Stage.PREPARE_DATA, figures=figures)


def _prepare(folder: Path, request: Request, model: Path) -> Prepared:
    return prepare(
        folder / "in" / str(request.table),
        request.config,
        model=model,
        seed=request.seed,
        stated_family=request.family,
        limits=request.limits,
    )


def _prepare_private(folder: Path, request: Request, model: Path, report: Report) -> Prepared:
    """Prepare with the key beside the table if there is one, and a draw that the supervisor may keep."""
    from nss_train.stages.private_preparation import (
        prepare_privately,  # the accountant takes a second to load
    )

    key, config = folder / "in" / HOLDOUT_KEY, request.config
    table = read_private_table(folder / "in" / str(request.table), config.guarantee, request.limits)
    columns.check_named_roles([column.name for column in table.columns], config)
    leave_sketch(folder, table, unit_column=unit_column(config))
    return prepare_privately(
        table,
        config,
        model=model,
        key=HoldoutKey(secret=key.read_bytes()) if key.is_file() else HoldoutKey.draw(),
        keeper=SupervisorsDraw(folder, report) if request.keep_draw else InMemory(),
        dataset=request.budget_name,
        stated_family=request.family,
    )


def prepare(
    table: Path,
    config: SafeSynthesizerParameters,
    *,
    model: Path,
    seed: int,
    entry: Entry = Entry.PROCESS_DATA,
    stated_family: str = "",
    limits: TableLimits | None = None,
    key: bytes | None = None,
) -> Prepared:
    """Prepare a table for a model in a local folder.

    For a private table, ``key`` decides which units are held out; without it, a key is drawn for this call.

    Raises :class:`~nss_train.errors.DataError`, :class:`~nss_train.errors.ParameterError` or
    :class:`~nss_train.errors.GenerationError` with every problem of table, config or lengths.
    """
    require_extras(*needed_by(config))
    if config.dp_enabled:
        from nss_train.stages.private_preparation import prepare_privately

        return prepare_privately(
            read_private_table(table, config.guarantee, limits),
            config,
            model=model,
            key=HoldoutKey.draw() if key is None else HoldoutKey(secret=key),
            keeper=InMemory(),
            holds_out=entry is Entry.PROCESS_DATA,
            stated_family=stated_family,
        )
    source = read_source(table, limits, config.reading)
    split = Split(train=source.frame, test=None)
    if entry is Entry.PROCESS_DATA:
        columns.check_columns(split.train)
        columns.check_rows(split.train, config)
        columns.check_roles(split.train, config)
        split = hold_out(split.train, config.data)
    prepared = prepare_split(split, config, model=model, seed=seed, stated_family=stated_family)
    warnings = warned([*map(str, source.changes), *source.doubts], then=prepared.warnings)
    return replace(prepared, read_as=source.read_as, warnings=warnings)


def prepare_split(
    split: Split, config: SafeSynthesizerParameters, *, model: Path, seed: int, stated_family: str = ""
) -> Prepared:
    """Prepare a training split that is in memory; raise the errors of :func:`prepare`."""
    name = config.training.pretrained_model
    family = family_of(name, model, stated=stated_family)
    columns.check_roles(split.train, config)
    resolved = resolve(config, split.train, family=family)
    warnings = [
        *warnings_of_family(name, model, stated=stated_family),
        *ignored(config),
        *columns.split_warnings(split.train, resolved.config),
    ]
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(resolved.config, model=model, tokenizer=tokenizer, family=family)
    prepared = assemble(split, resolved, metadata, tokenizer, seed=seed)
    return replace(prepared, warnings=warned(warnings, then=prepared.warnings))


def warned(found: Sequence[str], *, then: tuple[str, ...]) -> tuple[str, ...]:
    """Log each new warning, and return them before the earlier ones."""
    for warning in found:
        logger.warning("%s", warning, extra={"action": "data.warning"})
    return (*found, *then)


def assemble(
    split: Split,
    resolved: Resolved,
    metadata: ModelMetadata,
    tokenizer: ModelTokenizer,
    *,
    seed: int,
) -> Prepared:
    """Process everything after the resolved config: series, schema, records, packing."""
    config, frame = resolved.config, split.train
    if config.time_series.is_timeseries:
        series = time_series.process(frame, config)
        config, frame = series.config, series.frame
        metadata = replace(metadata, timeseries=series.metadata.as_json())
    exact = config.reading.types is Types.FAITHFUL
    table = to_arrow(frame, exact=exact)
    shown = table.drop_columns([c for c in table.column_names if c == PSEUDO_GROUP])
    written = distinct_columns(shown, exact=exact)
    dates = check_dates(written, config.reading)
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
        warnings=warned(dates, then=()),
    )


def _counted(metadata: ModelMetadata, train: Examples, assembled: Assembled) -> ModelMetadata:
    """Return the metadata with the facts about the examples that generation needs."""
    return replace(
        metadata,
        max_tokens_per_example=int(train.tokens_per_example.max()),
        max_records_per_group=assembled.max_records_per_group,
        timeseries_group_values=assembled.group_values,
    )
