"""The assembly of tables whose records belong to groups: a group is one sequence, never cut."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from sklearn.model_selection import GroupShuffleSplit

from nss_train.data.assembly.layout import Layout, Order, groups_as_sequences
from nss_train.data.assembly.packing import SHOWN_PROBLEMS, ValidationSplit, advice, nothing_to_train_on
from nss_train.data.ragged import Offsets, offsets_of
from nss_train.errors import GenerationError, ParameterError, Problem
from nss_train.model.metadata import ModelMetadata

RESERVED_TOKENS = 2
FALLBACK_SHARE = 0.05
SPLITS = 20
"""Number of splits that NSS tries; it keeps the one nearest to the wanted number of rows."""

Numbers = npt.NDArray[np.int64]


@dataclass(frozen=True, kw_only=True, slots=True)
class Groups:
    """The records by group, with the groups sorted by their key."""

    rows: Order
    """Record numbers, group after group; shape (records,)."""
    offsets: Offsets
    """Start of each group in ``rows``, and the end; shape (groups + 1,)."""
    tokens: Numbers
    """Tokens of each group's records; shape (groups,)."""

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def sizes(self) -> Numbers:
        """Return the number of records of each group."""
        return np.diff(self.offsets)


def find_groups(
    table: pa.Table, rows: Order, lengths: Numbers, *, group_by: str, order_by: str | None
) -> Groups:
    """Return the groups of some rows of a table. Rows without a group are left out, as in NSS."""
    if order_by is not None:
        column = table.column(order_by).take(pa.array(rows))
        rows = rows[pc.sort_indices(column).to_numpy().astype(np.int64)]
    keys = table.column(group_by).to_pandas().to_numpy()[rows]
    codes, unique = pd.factorize(keys, sort=True)
    by_group = np.argsort(codes, kind="stable")
    by_group = by_group[np.count_nonzero(codes < 0) :]
    sizes = np.bincount(codes[by_group], minlength=len(unique)).astype(np.int64)
    ordered = rows[by_group]
    offsets = offsets_of(sizes)
    totals = offsets_of(lengths[ordered])
    return Groups(rows=ordered, offsets=offsets, tokens=np.diff(totals[offsets]))


def group_order(groups: Groups, fraction: float, rng: np.random.Generator) -> Numbers:
    """Return the groups to train on: whole shuffled passes, then groups until enough records are included."""
    decimal, whole = math.modf(fraction)
    passes = [rng.permutation(len(groups)) for _ in range(int(whole))]
    if decimal > 0:
        shuffled = rng.permutation(len(groups))
        records = np.cumsum(groups.sizes[shuffled])
        wanted = math.ceil(decimal * int(groups.sizes.sum()))
        passes.append(shuffled[: int(np.searchsorted(records, wanted)) + 1])
    if not passes:
        raise nothing_to_train_on()
    return np.concatenate(passes)


def pack_groups(
    groups: Groups,
    chosen: Numbers,
    *,
    prompt_tokens: int,
    schema_tokens: int,
    max_groups: int | None,
    metadata: ModelMetadata,
) -> Layout:
    """Cut the chosen groups into examples: each as many groups as fit, ``max_groups`` at most.

    As in NSS, the prompt counts twice: in the example's length, and in the reserved tokens.
    """
    _check_groups(groups, chosen, prompt_tokens=prompt_tokens, metadata=metadata)
    budget = metadata.max_seq_length - schema_tokens - RESERVED_TOKENS
    ends: list[int] = []
    start, tokens = 0, prompt_tokens
    for position, group in enumerate(groups.tokens[chosen].tolist()):
        if position > start and (position - start == max_groups or tokens + group > budget):
            ends.append(position)
            start, tokens = position, prompt_tokens
        tokens += group + 2
    ends.append(len(chosen))
    return groups_as_sequences(groups.rows, groups.offsets, chosen, ends)


def split_groups(keys: pd.Series, test_size: float, *, seed: int | None) -> ValidationSplit:
    """Return the rows of two sets that share no group, the second with about ``test_size`` of the rows.

    ``test_size`` is a share, or a number of rows that is used as a number of groups, as in NSS.
    """
    rows, groups = len(keys), keys.nunique()
    if test_size > groups or test_size in (0, 1):
        test_size = FALLBACK_SHARE
    target = test_size if test_size > 1 else round(rows * test_size)
    if groups < 2 or test_size == groups:
        remedy = f"there are {groups} groups and this would leave none to train on; use a smaller share or 0"
        problem = Problem(field="groups", value=int(groups), remedy=remedy)
        raise ParameterError("The groups cannot be split.", [problem])
    splitter = GroupShuffleSplit(test_size=test_size, n_splits=SPLITS, random_state=seed)
    splits = splitter.split(np.empty(rows), groups=keys)
    # The first of several equally near splits is kept.
    train, test = min(splits, key=lambda split: abs(len(split[1]) - target))
    if len(test) == 0:
        return ValidationSplit(train=np.arange(rows, dtype=np.int64), validation=None)
    return ValidationSplit(train=np.asarray(train, np.int64), validation=np.asarray(test, np.int64))


def _check_groups(groups: Groups, chosen: Numbers, *, prompt_tokens: int, metadata: ModelMetadata) -> None:
    budget = metadata.max_seq_length - prompt_tokens - 2
    too_long = np.unique(chosen[groups.tokens[chosen] > budget])
    if len(too_long) == 0:
        return
    first = groups.rows[groups.offsets[too_long]]
    problems = [
        Problem(
            field=f"group of row {row}",
            value=int(groups.tokens[group]),
            remedy=f"{groups.tokens[group]} tokens in {groups.sizes[group]} records; the budget is {budget}",
        )
        for row, group in zip(first[:SHOWN_PROBLEMS].tolist(), too_long.tolist(), strict=False)
    ]
    summary = (
        f"{len(too_long)} of {len(groups)} groups are too long; group by a finer column, {advice(metadata)}"
    )
    problems.insert(0, Problem(field="groups", value=len(too_long), remedy=summary))
    raise GenerationError(
        "The number of tokens in an example exceeds the available context length.", problems
    )
