"""The assembly of time series: each example is a window of one group's records, in order."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from nss_train.data.assembly.groups import Groups
from nss_train.data.assembly.layout import Layout, Order, one_sequence_each
from nss_train.data.assembly.packing import nothing_to_train_on

SHORTEST_SHARE = 0.7
"""Least share of the budget of a training window, which is a random share of the whole budget."""

Numbers = npt.NDArray[np.int64]


def window_order(groups: Groups, fraction: float) -> Order:
    """Return the positions in ``groups.rows`` to train on: whole passes in order, then the start of one."""
    records = len(groups.rows)
    decimal, whole = math.modf(fraction)
    passes = [np.arange(records)] * int(whole)
    if decimal > 0:
        passes.append(np.arange(math.ceil(decimal * records)))
    if not passes:
        raise nothing_to_train_on()
    return np.concatenate(passes)


def pack_windows(
    groups: Groups,
    order: Order,
    lengths: Numbers,
    *,
    budget: int,
    max_records: int | None,
    rng: np.random.Generator | None,
) -> Layout:
    """Cut ``order`` into windows; ``rng`` draws each budget, without it every window gets it whole."""
    rows = groups.rows[order]
    totals = np.cumsum(lengths[rows])
    stops = _run_ends(groups, order)
    ends: list[int] = []
    start, before, most = 0, 0, max_records or len(rows)
    while start < len(rows):
        allowed = _draw(budget, rng)
        # A record longer than the drawn budget gets a window of its own length.
        allowed = max(allowed, int(lengths[rows[start]]))
        fitting = int(np.searchsorted(totals, before + allowed, side="right"))
        start = min(fitting, start + most, int(stops[start]))
        before = int(totals[start - 1])
        ends.append(start)
    return one_sequence_each(rows, ends)


def _draw(budget: int, rng: np.random.Generator | None) -> int:
    if rng is None:
        return budget
    return max(1, min(budget, int(budget * rng.uniform(SHORTEST_SHARE, 1.0))))


def _run_ends(groups: Groups, order: Order) -> Numbers:
    """Return, for each position, the end of its run of one group in one pass."""
    group = np.searchsorted(groups.offsets, order, side="right")
    breaks = np.flatnonzero((group[1:] != group[:-1]) | (order[1:] < order[:-1])) + 1
    ends = np.append(breaks, len(order))
    return ends[np.searchsorted(ends, np.arange(len(order)), side="right")]
