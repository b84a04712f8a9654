"""The packing of a table without groups into examples, and the parts that all tables share."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import NoReturn

import numpy as np
import numpy.typing as npt
from sklearn.model_selection import train_test_split

from nss_train.data.assembly.layout import Layout, Order, one_sequence_each
from nss_train.errors import DataError, GenerationError, ParameterError, Problem
from nss_train.model.metadata import ModelMetadata
from nss_train.text.counted import counted

SPECIAL_TOKENS = 4
"""Tokens that NSS reserves for begin and end tokens, whatever the family uses."""
MIN_TRAINING_ROWS = 100
SHOWN_PROBLEMS = 20


@dataclass(frozen=True, kw_only=True, slots=True)
class ValidationSplit:
    """The row numbers of the records to train on and to validate on."""

    train: Order
    validation: Order | None


def split_validation(records: int, ratio: float, *, seed: int) -> ValidationSplit:
    """Set aside ``ratio`` of the records for validation."""
    everything = np.arange(records, dtype=np.int64)
    if ratio == 0:
        return ValidationSplit(train=everything, validation=None)
    check_validation_ratio(records, ratio)
    if math.ceil(ratio * records) == records:  # scikit-learn's rounding
        few = counted(records, "record")
        _refuse_ratio(ratio, f"it leaves none of {few} to train on; use a smaller share")
    train, validation = train_test_split(everything, test_size=ratio, random_state=seed)
    return ValidationSplit(train=train, validation=validation)


def check_validation_ratio(records: int, ratio: float) -> None:
    """Check the ratio as NSS does, although NSS compares a share with a number of rows."""
    if ratio <= records - MIN_TRAINING_ROWS:
        return
    few = counted(records, "record")
    _refuse_ratio(
        ratio, f"{few} are too few for a validation split; more than {MIN_TRAINING_ROWS} are needed"
    )


def _refuse_ratio(ratio: float, remedy: str) -> NoReturn:
    problem = Problem(field="training.validation_ratio", value=ratio, remedy=remedy)
    raise ParameterError("The test set size is too large compared to the input dataset.", [problem])


def training_order(records: int, fraction: float, rng: np.random.Generator) -> Order:
    """Return the positions of the records to train on: whole shuffled passes, then a part of one.

    ``fraction`` is the number of passes; the arithmetic is NSS's, including its rounding.
    """
    decimal, whole = math.modf(fraction)
    passes = [rng.permutation(records) for _ in range(int(whole))]
    if decimal > 0:
        passes.append(rng.permutation(records)[: math.ceil(decimal * records)])
    if not passes:
        raise nothing_to_train_on()
    return np.concatenate(passes)


def nothing_to_train_on() -> ParameterError:
    """Return the error for a run that asks for no records."""
    remedy = "no records would be trained on; ask for at least one"
    problem = Problem(field="training.num_input_records_to_sample", value=0, remedy=remedy)
    return ParameterError("Nothing to train on.", [problem])


def records_budget(prompt_tokens: int, metadata: ModelMetadata) -> int:
    """Return the most tokens of an example's records; :class:`GenerationError` if the prompt is too long."""
    context = metadata.max_seq_length
    if prompt_tokens > context:
        remedy = f"naming the columns takes {prompt_tokens} of {context} tokens; {advice(metadata)}"
        problem = Problem(field="columns", value=prompt_tokens, remedy=remedy)
        message = "The dataset schema requires more tokens than the max length of the model."
        raise GenerationError(message, [problem])
    return context - prompt_tokens - SPECIAL_TOKENS


def check_lengths(prompt_tokens: int, lengths: npt.NDArray[np.int64], metadata: ModelMetadata) -> int:
    """Return the token budget of an example's records; :class:`GenerationError` if a record exceeds it."""
    budget = records_budget(prompt_tokens, metadata)
    too_long = np.flatnonzero(lengths > budget)
    if len(too_long) == 0:
        return budget
    problems = [
        Problem(
            field=f"row {row}",
            value=int(lengths[row]),
            remedy=f"{lengths[row]} tokens; the budget is {budget}",
        )
        for row in too_long[:SHOWN_PROBLEMS].tolist()
    ]
    summary = f"{len(too_long)} of {len(lengths)} records are too long; {advice(metadata)}"
    problems.insert(0, Problem(field="rows", value=len(too_long), remedy=summary))
    raise GenerationError(
        "At least one record requires more tokens than fit in the available context length.", problems
    )


def pack(order: Order, lengths: npt.NDArray[np.int64], *, budget: int, max_records: int | None) -> Layout:
    """Cut ``order`` into examples: each as many records as fit the budget, ``max_records`` at most."""
    ends: list[int] = []
    totals = np.cumsum(lengths[order])
    start, before, most = 0, 0, max_records or len(order)
    while start < len(order):
        fitting = int(np.searchsorted(totals, before + budget, side="right"))
        start = min(max(fitting, start + 1), start + most, len(order))
        before = int(totals[start - 1])
        ends.append(start)
    return one_sequence_each(order, ends)


def requested_fraction(wanted: int | str, records: float) -> float:
    """Return the number of passes over the training records that ``num_input_records_to_sample`` means."""
    if not isinstance(wanted, int):
        raise DataError(f"num_input_records_to_sample was not resolved to a number: {wanted!r}")
    return wanted / records


def advice(metadata: ModelMetadata) -> str:
    """Return the remedies for records that do not fit."""
    ways = "use fewer or shorter columns or drop rows with long text"
    if metadata.family.uses_rope_factor:
        factor = 1 if metadata.rope is None else int(metadata.rope.factor)
        return f"raise training.rope_scaling_factor (now {factor}, 6 at most), {ways}"
    return ways
