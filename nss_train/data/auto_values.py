"""The resolution of every ``auto`` of a config to a value, with a reason."""

from __future__ import annotations

import functools
import logging
import math
import operator
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from nss_train.config.parameters import SafeSynthesizerParameters
from nss_train.config.sections.privacy import MOST_DELTA, DifferentialPrivacyParameters
from nss_train.model.family import Family, find_family

if TYPE_CHECKING:
    import pandas as pd

logger = logging.getLogger(__name__)

ROPE_UNIT_TOKENS = 2048 * 6
"""Divisor that NSS uses for every model, whatever its context."""
MAX_ROPE_FACTOR = 6
RECORDS_PER_ROPE_UNIT = 25_000
ESTIMATED_ROWS = 5000

_DIGIT_AND_NEXT = re.compile(r"\d.")
_DIGIT = re.compile(r"\d")


@dataclass(frozen=True, kw_only=True, slots=True)
class Choice:
    """One automatic choice."""

    name: str
    value: Any
    reason: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Resolved:
    """A config without ``auto``, and the reason for each resolved value."""

    config: SafeSynthesizerParameters
    choices: tuple[Choice, ...]


def resolve(
    config: SafeSynthesizerParameters, frame: pd.DataFrame, *, family: Family | None = None
) -> Resolved:
    """Resolve all automatic values for a training split, in NSS's order."""
    return _resolved(config, _rope_scaling_factor(config, frame), family)


def resolve_privately(config: SafeSynthesizerParameters, *, family: Family | None = None) -> Resolved:
    """Resolve all automatic values except δ from the config alone; :func:`resolve_delta` needs n.

    This holds for jobs that are not strict too: a value chosen by one record would change others' examples.
    """
    return _resolved(config, _public_rope_scaling_factor(config), family)


def resolve_delta(resolved: Resolved, *, units: int) -> Resolved:
    """Resolve δ for n units of privacy."""
    privacy = resolved.config.privacy
    choice = None if privacy is None else automatic_delta(privacy, units=units)
    if privacy is None or choice is None:
        return resolved
    _log(choice)
    update = {"privacy": privacy.model_copy(update={"delta": choice.value})}
    return Resolved(config=resolved.config.model_copy(update=update), choices=(*resolved.choices, choice))


def _resolved(config: SafeSynthesizerParameters, rope: Choice | None, family: Family | None) -> Resolved:
    choices = (rope, _num_input_records(config, rope), _learning_rate(config, family), _max_sequences(config))
    made = tuple(choice for choice in choices if choice is not None)
    training = {c.name.partition(".")[2]: c.value for c in made if c.name.startswith("training.")}
    for choice in made:
        _log(choice)
    update = {"training": config.training.model_copy(update=training)}
    return Resolved(config=config.model_copy(update=update), choices=made)


def _log(choice: Choice) -> None:
    fields = {"action": "config.resolved", "parameter": choice.name, "value": choice.value}
    logger.info("%s=%s because %s", choice.name, choice.value, choice.reason, extra=fields)


def max_token_count(frame: pd.DataFrame, group_by: str | None = None) -> float:
    """Return NSS's estimate of the longest record or group in tokens: 4 characters or 1 digit per token.

    A digit in a value consumes the character after it, a digit in a column name does not; the
    constants are NSS's.
    """
    if frame.size == 0:
        return 1
    title = " ".join(str(column) for column in frame.columns)
    digits = len(_DIGIT.findall(title))
    title_tokens = (len(title) - digits) / 4 + digits
    head = _head(frame, group_by)
    tokens = [_content_tokens(head[c], last=c == head.columns[-1]) for c in head.columns]
    contents = functools.reduce(operator.add, tokens)
    fields = 4 * len(frame.columns)
    if group_by is None:
        return float(40 + contents.max() + 2.5 * title_tokens + fields)
    groups = contents.groupby(head[group_by].to_numpy())
    rows = groups.size()
    # A newline between two records is a quarter of a token.
    total = 40 + groups.sum() + (rows - 1) / 4 + (2 + 0.5 * rows) * title_tokens + fields * rows
    return float(total.max())


def _head(frame: pd.DataFrame, group_by: str | None) -> pd.DataFrame:
    if len(frame) > ESTIMATED_ROWS and group_by is not None:
        frame = frame.sort_values(group_by)
    return frame.head(ESTIMATED_ROWS).reset_index(drop=True)


def _content_tokens(column: pd.Series[Any], *, last: bool) -> pd.Series[Any]:
    """Estimate the tokens of each value of a column, with the space after it."""
    # Categories cannot be summed.
    values = column.astype(object) if column.dtype == "category" else column
    written = values.map(str)
    return written.map({text: _text_tokens(text if last else f"{text} ") for text in written.unique()})


def _text_tokens(content: str) -> float:
    text = len(_DIGIT_AND_NEXT.sub("", content))
    return text / 4 + (len(content) - text)


def _rope_scaling_factor(config: SafeSynthesizerParameters, frame: pd.DataFrame) -> Choice | None:
    if config.training.rope_scaling_factor != "auto":
        return None
    tokens = max_token_count(frame, config.data.group_training_examples_by)
    factor = min(MAX_ROPE_FACTOR, math.ceil(tokens / ROPE_UNIT_TOKENS))
    reason = f"the longest record has about {tokens:,.0f} tokens, and one unit is {ROPE_UNIT_TOKENS:,}"
    return Choice(name="training.rope_scaling_factor", value=factor, reason=reason)


def _public_rope_scaling_factor(config: SafeSynthesizerParameters) -> Choice | None:
    if config.training.rope_scaling_factor != "auto":
        return None
    reason = "the lengths of private records may not decide; set it by what is publicly known of them"
    return Choice(name="training.rope_scaling_factor", value=1, reason=reason)


def _num_input_records(config: SafeSynthesizerParameters, rope: Choice | None) -> Choice | None:
    if config.training.num_input_records_to_sample != "auto":
        return None
    # As in NSS, only an automatic factor counts.
    factor = 1 if rope is None else int(rope.value)
    reason = f"{RECORDS_PER_ROPE_UNIT:,} records for each unit of context (automatic rope factor {factor})"
    value = RECORDS_PER_ROPE_UNIT * factor
    return Choice(name="training.num_input_records_to_sample", value=value, reason=reason)


def _learning_rate(config: SafeSynthesizerParameters, family: Family | None) -> Choice | None:
    if config.training.learning_rate != "auto":
        return None
    family = family or find_family(config.training.pretrained_model)
    reason = f"pretrained_model is of the {family.name} family"
    return Choice(name="training.learning_rate", value=family.learning_rate, reason=reason)


def _max_sequences(config: SafeSynthesizerParameters) -> Choice | None:
    value = config.data.max_sequences_per_example
    if config.dp_enabled:
        reason = "under differential privacy an example is one unit"
    elif config.time_series.is_timeseries:
        reason = "a window of a time series is limited by its tokens only"
    elif value == 10:
        reason = "it is NSS's default for tables"
    else:
        return None
    return Choice(name="data.max_sequences_per_example", value=value, reason=reason)


def unit_column(config: SafeSynthesizerParameters) -> str | None:
    """Return the column whose values are the units of privacy; ``None`` if each row is a unit."""
    return config.guarantee.unit_column or config.data.group_training_examples_by


def automatic_delta(privacy: DifferentialPrivacyParameters, *, units: int) -> Choice | None:
    """Return the automatic δ for n units; ``None`` if the config gives δ."""
    if isinstance(privacy.delta, float):
        return None
    if privacy.delta == "nss":
        few = units < 100
        reason = f"NSS's rule for {units} units: {'0.1/n' if few else '1/n^1.2'}"
        value = 0.1 / units if few else 1 / units**1.2
    else:
        reason = f"of {units} units not one in ten is lost: min(1e-5, 1/(10 n))"
        value = min(MOST_DELTA, 0.1 / units)
    return Choice(name="privacy.delta", value=value, reason=reason)
