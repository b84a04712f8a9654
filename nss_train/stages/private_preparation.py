"""The whole preparation of a private table.

It differs from the preparation without privacy: the table determines nothing but its records' own tokens and
the values that are released with noise.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pandas as pd

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import SchemaSource
from nss_train.cost.work import typical_record
from nss_train.data.assembly.assembler import Assembled, of_groups
from nss_train.data.assembly.groups import Groups
from nss_train.data.assembly.layout import Layout, groups_as_sequences, one_sequence_each
from nss_train.data.assembly.packing import nothing_to_train_on, records_budget
from nss_train.data.auto_values import Resolved, resolve_privately
from nss_train.data.columns import check_named_roles
from nss_train.data.examples import Examples, Prompt
from nss_train.data.prepared import Prepared
from nss_train.data.private.table import PrivateTable
from nss_train.data.schema import make_schema
from nss_train.data.tokenization.distinct_values import taken
from nss_train.data.tokenization.records import Records, tokenize_each
from nss_train.errors import ParameterError, Problem
from nss_train.model.footprint import text_part
from nss_train.model.local.source import read_config
from nss_train.model.metadata import ModelMetadata, family_of, read_metadata
from nss_train.model.tokenizer import load_tokenizer
from nss_train.privacy.coins import HoldoutKey
from nss_train.privacy.draw import DrawKeeper
from nss_train.privacy.schema.publication import Publication, Publisher
from nss_train.privacy.units import FoundUnits, Membership, UnitLimits, find_units, take, toss

Numbers = npt.NDArray[np.int64]

GROUP_TOKENS = 2
"""Number of tokens around the records of a group: a begin and an end token."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Tokenized:
    """All records as tokens, with the public facts that they follow from."""

    resolved: Resolved
    """Resolved config, except for δ, which needs n."""
    metadata: ModelMetadata
    schema_prompt: str
    schema_tokens: int
    typical_record_tokens: int
    prompt: Prompt
    records: Records

    @property
    def limits(self) -> UnitLimits:
        """Return the limits of a unit: what fits into an example, and what the config allows."""
        config = self.resolved.config
        most = config.guarantee.max_tokens_per_unit
        record = records_budget(self.schema_tokens, self.metadata)
        if _is_grouped(config):
            group = self.metadata.max_seq_length - len(self.prompt.ids) - GROUP_TOKENS
            return UnitLimits(tokens_per_record=record, tokens=group if most is None else min(group, most))
        records = config.guarantee.max_records_per_unit
        return UnitLimits(tokens_per_record=record, tokens=most, records=records)


@dataclass(frozen=True, kw_only=True, slots=True)
class Sides:
    """The unit numbers on each side of the splits; ``None`` for a side that does not exist."""

    train: Numbers
    validation: Numbers | None
    held_out: Numbers | None


def prepare_privately(
    table: PrivateTable,
    config: SafeSynthesizerParameters,
    *,
    model: Path,
    key: HoldoutKey,
    keeper: DrawKeeper,
    dataset: str = "",
    holds_out: bool = True,
    stated_family: str = "",
) -> Prepared:
    """Prepare a private table for a model in a local folder.

    With the same key and the same kept draw, the same table gives the same bytes. Raises
    :class:`~nss_train.errors.ParameterError` or :class:`~nss_train.errors.GenerationError` only for public
    facts: the config, names and types of the columns, n.
    """
    tokenized = _tokenized(table, config, model, stated_family)
    units = find_units(table, tokenized.records.lengths, tokenized.resolved.config, tokenized.limits)
    publisher = Publisher(
        resolved=tokenized.resolved,
        types=table.types,
        places=len(table),
        dataset=config.guarantee.dataset or dataset or key.name(),
        holds_out=holds_out,
        keeper=keeper,
    )
    published = publisher.publish(table, units)
    sides = _split(units, table, published, key)
    return _prepared(table, tokenized, units, sides, published)


def _tokenized(
    table: PrivateTable, config: SafeSynthesizerParameters, model: Path, stated_family: str
) -> Tokenized:
    names = [column.name for column in table.columns]
    check_named_roles(names, config)
    family = family_of(config.training.pretrained_model, model, stated=stated_family)
    resolved = resolve_privately(config, family=family)
    if resolved.config.training.num_input_records_to_sample == 0:
        raise nothing_to_train_on()
    tokenizer = load_tokenizer(model)
    metadata = read_metadata(resolved.config, model=model, tokenizer=tokenizer, family=family)
    schema_prompt = metadata.prompt(names)
    schema_ids = tokenizer.encode(schema_prompt)
    records_budget(len(schema_ids), metadata)  # check that a budget exists before the records are read
    return Tokenized(
        resolved=resolved,
        metadata=metadata,
        schema_prompt=schema_prompt,
        schema_tokens=len(schema_ids),
        typical_record_tokens=typical_record(table.types, tokenizer),
        prompt=Prompt.of(schema_ids, metadata),
        records=tokenize_each(table.columns, tokenizer, vocabulary=_vocabulary(model, config)),
    )


def _vocabulary(model: Path, config: SafeSynthesizerParameters) -> int:
    """Return the number of ids that a base model has; raise :class:`ParameterError` if it does not say."""
    found = text_part(read_config(model)).get("vocab_size")
    if type(found) is not int:
        remedy = "its config.json has no vocab_size, so that nobody can tell which texts it reads"
        problem = Problem(
            field="training.pretrained_model", value=config.training.pretrained_model, remedy=remedy
        )
        raise ParameterError("The base model cannot be trained privately.", [problem])
    return found


def _split(units: FoundUnits, table: PrivateTable, published: Publication, key: HoldoutKey) -> Sides:
    """Split each unit by its own coins: first held out or not, then validated on or not."""
    config, shares = published.resolved.config, published.shares
    held = toss(units, table, config, key.holdout(), share=shares.holdout)
    validated = toss(units, table, config, key.validation(), share=shares.validation) & ~held
    return Sides(
        train=np.flatnonzero(~held & ~validated),
        validation=np.flatnonzero(validated) if shares.validation > 0 else None,
        held_out=np.flatnonzero(held) if shares.holdout > 0 else None,
    )


def _prepared(
    table: PrivateTable, tokenized: Tokenized, units: FoundUnits, sides: Sides, published: Publication
) -> Prepared:
    config = published.resolved.config
    assembled = _assembled(units, sides, config, published.passes)
    prompt, records = tokenized.prompt, tokenized.records
    validation = assembled.validation
    return Prepared(
        config=config,
        choices=published.resolved.choices,
        metadata=_counted(tokenized.metadata, prompt, records, assembled, config),
        schema=_schema(table, assembled, published),
        schema_prompt=tokenized.schema_prompt,
        schema_prompt_tokens=tokenized.schema_tokens,
        table=None,
        columns=table.columns,
        training=_frame(table, units, sides.train, sides.validation, config=config),
        test=_frame(table, units, sides.held_out, config=config),
        records=records,
        train=Examples.of(prompt, records, assembled.train),
        validation=None if validation is None else Examples.of(prompt, records, validation),
        assembled=assembled,
        data_fraction=assembled.fraction,
        typical_record_tokens=tokenized.typical_record_tokens,
        plan=published.plan,
    )


def _assembled(
    units: FoundUnits, sides: Sides, config: SafeSynthesizerParameters, passes: float
) -> Assembled:
    """Return each unit once: more passes mean more steps."""
    train, grouped = take(units.groups, sides.train), _is_grouped(config)
    validation = None if sides.validation is None else take(units.groups, sides.validation)
    plan = _once_each(train, grouped=grouped)
    each = np.ones_like(train.sizes) if grouped else train.sizes
    return Assembled(
        train=plan,
        validation=None if validation is None else _once_each(validation, grouped=grouped),
        fraction=passes,
        records_train=len(train.rows),
        units_train=len(train),
        described=np.sort(units.groups.rows),
        max_records_per_group=int(train.sizes.max(initial=0)) if grouped else None,
        statistics=of_groups(train, plan) if grouped else {},
        membership=Membership(
            of_example=np.repeat(np.arange(len(train), dtype=np.int64), each),
            firsts=train.rows[train.offsets[:-1]],
        ),
    )


def _once_each(units: Groups, *, grouped: bool) -> Layout:
    """Return one example per group, or per record if groups are not kept together."""
    if not grouped:
        return one_sequence_each(units.rows, range(1, len(units.rows) + 1))
    groups = np.arange(len(units), dtype=np.int64)
    return groups_as_sequences(units.rows, units.offsets, groups, (groups + 1).tolist())


def _is_grouped(config: SafeSynthesizerParameters) -> bool:
    return config.data.group_training_examples_by is not None


def _schema(table: PrivateTable, assembled: Assembled, published: Publication) -> dict[str, object]:
    """Return the published schema or, if the config asks for it, the table's own, outside the guarantee."""
    if published.resolved.config.guarantee.schema_source is not SchemaSource.RAW:
        return dict(published.schema)
    rows = np.sort(assembled.train.rows)
    return make_schema([taken(column, rows) for column in table.columns])


def _counted(
    metadata: ModelMetadata,
    prompt: Prompt,
    records: Records,
    assembled: Assembled,
    config: SafeSynthesizerParameters,
) -> ModelMetadata:
    """Return the metadata with facts that generation needs; for a strict job, only public limits."""
    if config.strictly_private:
        return replace(metadata, max_tokens_per_example=metadata.max_seq_length)
    tokens = Examples.of(prompt, records, assembled.train).tokens_per_example
    return replace(
        metadata,
        max_tokens_per_example=int(tokens.max(initial=0)),
        max_records_per_group=assembled.max_records_per_group,
    )


def _frame(
    table: PrivateTable, units: FoundUnits, *sides: Numbers | None, config: SafeSynthesizerParameters
) -> pd.DataFrame | None:
    """Return the records of some units, if the job publishes them."""
    chosen = [side for side in sides if side is not None]
    if config.strictly_private or not chosen:
        return None
    rows = np.sort(take(units.groups, np.concatenate(chosen)).rows)
    columns = (taken(column, rows) for column in table.columns)
    return pd.DataFrame(
        {
            column.name: pd.array([column.values[code] for code in column.codes], dtype=object)
            for column in columns
        }
    )
