"""Configs that are refused before any work: one clear list is better than a guarantee that does not hold."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from nss_train.config.bounds import STEPS
from nss_train.config.sections.guarantee import PublicColumn, SchemaSource
from nss_train.config.sections.training import LOSS_SCHEDULES, ROWWISE_ATTENTIONS
from nss_train.errors import Problem

if TYPE_CHECKING:
    from nss_train.config.parameters import SafeSynthesizerParameters


LARGEST_BATCH = 2**20
"""Largest number of examples of an optimizer step."""
MOST_RANKS = 1_024


def unsupported_training(config: SafeSynthesizerParameters) -> tuple[Problem, ...]:
    """Return every reason to refuse a training that the config alone reveals."""
    if not config.dp_enabled:
        return (*_schedule(config), *_validation(config), *_cost(config))
    strict = _against_strict(config) if config.strictly_private else ()
    return (
        *_schedule(config),
        *_validation(config),
        *_cost(config),
        *out_of_range(config),
        *strict,
        *_attention(config),
        *_units(config),
        *_declared(config),
        *_marks(config),
    )


def _marks(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    """Yield a problem for each declared mark: a private table's format is neither declared nor detected."""
    remedy = "a private job reads commas, points in numbers and UTF-8; convert the table and leave this out"
    for name, value in config.reading.marks().items():
        yield Problem(field=f"reading.{name}", value=value, remedy=remedy)


def unsupported_ranks(ranks: int, *, effective_batch: int) -> Iterator[Problem]:
    """Yield every reason why so many processes cannot share an effective batch; 0: the worker chooses."""
    if ranks > MOST_RANKS:
        yield Problem(field="ranks", value=ranks, remedy=f"use {MOST_RANKS} at most")
    elif ranks < 0:
        yield Problem(field="ranks", value=ranks, remedy="use 0, which leaves it to the worker, or more")
    elif ranks and effective_batch % ranks:
        remedy = f"must divide the effective batch of {effective_batch}"
        yield Problem(field="ranks", value=ranks, remedy=remedy)


def unsupported_sharing(
    config: SafeSynthesizerParameters, *, ranks: int, quantized: bool = False
) -> Iterator[Problem]:
    """Yield every reason why the ranks of this training cannot share the base model's weights.

    ``ranks=0``: their number is not known yet. ``quantized``: the base model is already quantized.
    """
    if config.dp_enabled:
        yield _unshared("the gradients of single units need whole layers; leave it out")
    if config.training.quantize_model or quantized:
        yield _unshared("quantized weights stay whole on every rank; leave it out, or use others")
    if ranks == 1:
        yield _unshared("a single rank has no other rank to share with; ask for more ranks, or leave it out")


def _unshared(remedy: str) -> Problem:
    return Problem(field="fsdp", value=True, remedy=remedy)


def _schedule(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    name = config.training.lr_scheduler
    if name not in LOSS_SCHEDULES:
        return
    if config.dp_enabled:
        remedy = "it goes by losses of records, as a private training must not; use another, such as cosine"
        yield Problem(field="training.lr_scheduler", value=name, remedy=remedy)
    elif config.training.validation_ratio == 0:
        remedy = "it goes by validation losses; set training.validation_ratio, or use another, such as cosine"
        yield Problem(field="training.lr_scheduler", value=name, remedy=remedy)


def _validation(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    ratio = config.training.validation_ratio
    if ratio == 1:
        remedy = "it leaves no record to train on; use a smaller share, such as 0.1"
        yield Problem(field="training.validation_ratio", value=ratio, remedy=remedy)


def _attention(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    name = config.training.attn_implementation
    if name not in ROWWISE_ATTENTIONS:
        remedy = f"its kernels pack rows of a batch together; use {' or '.join(ROWWISE_ATTENTIONS)}"
        yield Problem(field="training.attn_implementation", value=name, remedy=remedy)


def _cost(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    """Yield a problem for values that would cost weeks, or more memory than any machine has."""
    records, batch = config.training.num_input_records_to_sample, config.training.effective_batch_size
    if batch > LARGEST_BATCH:
        remedy = f"times gradient_accumulation_steps at most {LARGEST_BATCH:,}: no step needs more examples"
        yield Problem(field="training.batch_size", value=batch, remedy=remedy)
    if isinstance(records, int) and records // batch > STEPS:
        remedy = f"makes up to {records // batch:,} steps of {batch}; ask for {STEPS * batch:,} at most"
        yield Problem(field="training.num_input_records_to_sample", value=records, remedy=remedy)


def out_of_range(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    """Yield a problem for each value that makes the guarantee nominal, or its noise unrepresentable."""
    privacy, guarantee = config.privacy, config.guarantee
    if privacy is None:
        return
    least = (
        ("privacy.epsilon", privacy.epsilon, 1e-3, "the noise would leave nothing to learn from"),
        ("privacy.delta", privacy.delta, 1e-15, "accountants are not that exact; use auto"),
        (
            "privacy.per_sample_max_grad_norm",
            privacy.per_sample_max_grad_norm,
            1e-6,
            "gradients would vanish",
        ),
        ("guarantee.count_share", guarantee.count_share, 1e-6, "the count would be noise alone"),
        ("guarantee.schema_share", guarantee.schema_share, 1e-6, "the schema would be noise alone"),
    )
    for field, value, low, why in least:
        if isinstance(value, float) and value < low:
            yield Problem(field=field, value=value, remedy=f"must be {low:g} or more: {why}")


def _against_strict(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    ratio, source = config.training.validation_ratio, config.guarantee.schema_source
    if ratio > 0:
        remedy = "validation losses are of private records and have no noise; set it to 0, {otherwise}"
        yield _uncovered("training.validation_ratio", ratio, remedy)
    if source is SchemaSource.RAW:
        remedy = "the schema would hold the table's own values; take private or declared, {otherwise}"
        yield _uncovered("guarantee.schema_source", source.value, remedy)


def _uncovered(field: str, value: float | str, remedy: str) -> Problem:
    otherwise = "or publish it outside the guarantee with guarantee.strict: false"
    return Problem(field=field, value=value, remedy=remedy.format(otherwise=otherwise))


def _units(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    unit, group = config.guarantee.unit_column, config.data.group_training_examples_by
    if unit is not None and group is not None and unit != group:
        remedy = f"a group is one example and so one unit; leave it out, or make it {group!r} too"
        yield Problem(field="guarantee.unit_column", value=unit, remedy=remedy)
    column = unit or group
    if column is not None and config.guarantee.units == "rows":
        remedy = (
            f"values of {column!r} are counted with noise or declared; a count of the table would tell"
            " whether one is there"
        )
        yield Problem(field="guarantee.units", value="rows", remedy=remedy)


def _declared(config: SafeSynthesizerParameters) -> Iterator[Problem]:
    for name, column in config.guarantee.columns.items():
        remedy = _contradiction(column)
        if remedy:
            yield Problem(field=f"guarantee.columns.{name}", value=column.model_dump_json(), remedy=remedy)


def _contradiction(column: PublicColumn) -> str:
    if column.categories is not None and not column.categories:
        return "an empty list of categories allows no value; name some, or leave it out"
    bounded = column.minimum is not None or column.maximum is not None
    if column.categories is not None and bounded:
        return "categories say it all; leave minimum and maximum out"
    if column.minimum is not None and column.maximum is not None and column.minimum > column.maximum:
        return "minimum must not be above maximum"
    return ""
