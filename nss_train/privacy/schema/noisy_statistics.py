"""Noisy statistics of one column, categories and bounds, by OpenDP with its own randomness.

One value of each unit goes in, so a unit changes one count by one.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

Numbers = npt.NDArray[np.float64]

COVERED = 0.9
"""Share of the units that published categories must cover: any other value would be rejected for good."""
MISTAKE = 0.02
"""Probability that any empty bucket counts as occupied; it only makes bounds wider."""
OCTAVES = 40
"""Bounds are 0, powers of two from 1 to 2 to this power, and their negatives; beyond, there is no bound.
Smaller powers would put many buckets between 0 and 1, and an overlooked 0 out of reach."""
FINE = 8
"""Parts of a bucket, if there are enough units."""
FINE_UNITS = 200
"""Units are enough when an overlooked part holds at most one in this many of them."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Categories:
    """The values that enough units share."""

    found: tuple[int, ...]
    """Codes of the values, ascending."""
    threshold: int
    """Least noisy count of a published value."""
    share: float
    """Share of all units, by the noisy counts less their standard deviation."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Bounds:
    """Bounds between which most values lie; ``None``: no bound."""

    minimum: float | None
    maximum: float | None
    threshold: int
    """Least noisy count of a bucket that counts as occupied."""


def count(units: int, *, epsilon: float) -> int:
    """Return the number of units with discrete Laplace noise: ε-differentially private. May be below 0."""
    dp = _opendp()
    space = dp.atom_domain(T=int), dp.absolute_distance(T=int)
    mechanism = dp.m.make_laplace(*space, scale=_scale(epsilon))
    if not mechanism.check(1, epsilon):
        raise ArithmeticError(f"the noise of OpenDP costs more than {epsilon}")
    return int(mechanism(units))


def categories(values: Sequence[int], *, units: int, epsilon: float, delta: float) -> Categories:
    """Return the values, given as codes, whose noisy count passes a threshold: (ε, δ)-differentially private.

    This is stability-based selection (Korolova et al. 2009; OpenDP's Laplace threshold). A value that one
    unit has is found with probability ``delta``. The codes may depend on the values: a value's code affects
    only its name.
    """
    dp = _opendp()
    scale = _scale(epsilon)
    counts = _column(dp) >> dp.t.then_count_by(TV=int)
    threshold = math.ceil(1 + scale * math.log(1 / (2 * delta)))
    while True:
        mechanism = counts >> dp.m.then_laplace_threshold(scale=scale, threshold=threshold)
        if mechanism.check(1, (epsilon, delta)):
            break
        threshold += 1
    noisy: dict[int, int] = mechanism(list(values))
    counted = sum(noisy.values()) - scale * math.sqrt(2 * len(noisy))
    return Categories(found=tuple(sorted(noisy)), threshold=threshold, share=counted / units)


def bounds(values: Numbers, *, units: int, epsilon: float) -> Bounds:
    """Return the outermost occupied buckets of a public grid, by noisy counts: ε-differentially private.

    They are the extreme quantiles of a noisy histogram over powers of two, as in the approximate bounds of
    Wilson et al. 2020 (arXiv 1909.01917). A bucket with few units is overlooked, so bounds lie one bucket
    further out. ``units`` is their public number; some may have no value.

    Quantiles by the exponential mechanism do not work on so wide a grid: they rate all candidates beyond the
    data nearly equally. For 342 lengths of 32 to 60 mm and ε = 0.07, three draws of the two at 1% and 99%
    gave (-1.1e12, 65536), (-8.4e6, 3.4e7) and (-4096, 262144); this function gives (16, 128).
    """
    edges = _edges(FINE)
    if FINE_UNITS * _threshold(edges, epsilon) > units:
        edges = _edges(1)
    threshold = _threshold(edges, epsilon)
    noisy = _noisy_counts(np.digitize(values, edges), len(edges) + 1, epsilon)
    seen = np.flatnonzero(noisy >= threshold)
    if len(seen) == 0:
        return Bounds(minimum=None, maximum=None, threshold=threshold)
    # Bucket i lies between edges i - 1 and i.
    low, high = int(seen[0]) - 2, int(seen[-1]) + 1
    return Bounds(
        minimum=float(edges[low]) if low >= 0 else None,
        maximum=float(edges[high]) if high < len(edges) else None,
        threshold=threshold,
    )


def _edges(parts: int) -> Numbers:
    """Return the ascending edges of the buckets; two more buckets lie outside."""
    part = np.arange(parts) / parts
    octaves = np.multiply.outer(2.0 ** np.arange(OCTAVES), 1 + part).ravel()
    positive = np.concatenate([part[1:], octaves, [2.0**OCTAVES]])
    return np.concatenate([-positive[::-1], [0.0], positive])


def _threshold(edges: Numbers, epsilon: float) -> int:
    """Return the count that noise alone reaches in any bucket with probability :data:`MISTAKE` at most."""
    buckets = len(edges) + 1
    return math.ceil(_scale(epsilon) * math.log(buckets / (2 * MISTAKE)))


def _noisy_counts(buckets: npt.NDArray[np.int64], size: int, epsilon: float) -> npt.NDArray[np.int64]:
    dp = _opendp()
    counts = _column(dp) >> dp.t.then_count_by_categories(categories=list(range(size)), null_category=False)
    mechanism = counts >> dp.m.then_laplace(scale=_scale(epsilon))
    if not mechanism.check(1, epsilon):
        raise ArithmeticError(f"the noise of OpenDP costs more than {epsilon}")
    return np.asarray(mechanism(buckets.tolist()), dtype=np.int64)


def _scale(epsilon: float) -> float:
    """Return the scale of Laplace noise for a sensitivity of 1, rounded to the safe side."""
    return (1 + 1e-9) / epsilon


def _column(dp: Any) -> Any:
    """Return the domain and metric of one number per unit; neighbours differ by one of them."""
    return dp.vector_domain(dp.atom_domain(T=int)), dp.symmetric_distance()


def _opendp() -> Any:
    import opendp.prelude as dp  # takes a second, and only a private schema needs it

    dp.enable_features("contrib")
    return dp
