"""A Rényi filter: a limit on the total cost of jobs, each of which may depend on earlier results.

Composing settings as if they had been fixed beforehand gives no guarantee when a job is picked, or skipped,
because of earlier results. Rényi divergence of a fixed order adds up even then, as long as the sum stays
below a value that was fixed beforehand (Feldman & Zrnic 2021, arXiv 2008.11193), also for concurrent jobs
(Haney et al. 2023, arXiv 2309.05901).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from dp_accounting.rdp import RdpAccountant, compute_epsilon

from nss_train.privacy.accounting import accountant

ORDERS = (2.0, 3.0, 4.0, 6.0, 8.0, 12.0, 16.0, 32.0)
"""Λ when future jobs are unknown: one of these orders is near the best for ε from 0.5 to 30."""
CANDIDATES = (*(1 + i / 4 for i in range(2, 12)), *range(4, 65), 80, 96, 128)
"""Orders from which one is chosen when the jobs are known."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Release:
    """A release to account for: steps of sampled Gaussians, and by-products of a pure ε each."""

    steps: Mapping[tuple[float, float], int]
    """Number of steps by noise multiplier and sampling rate."""
    pure: tuple[float, ...] = ()

    def divergence(self, orders: Sequence[float]) -> list[float]:
        """Return the total Rényi divergence at each order."""
        found = RdpAccountant(orders=orders, neighboring_relation=accountant.ZERO_OUT)
        for (noise, rate), count in self.steps.items():
            if count > 0:
                found.compose(accountant.training(noise_multiplier=noise, sampling_rate=rate, steps=count))
        products = [sum(_of_pure(epsilon, order) for epsilon in self.pure) for order in orders]
        return [float(steps) + paid for steps, paid in zip(found.rdp, products, strict=True)]

    @property
    def is_nothing(self) -> bool:
        return not self.pure and not any(self.steps.values())


def _of_pure(epsilon: float, order: float) -> float:
    """Return a bound of the Rényi divergence of a pure ε-DP mechanism.

    min(ε, αε²/2): Bun & Steinke 2016, arXiv 1605.02065, Proposition 3.3; and the divergence of order ∞ is ε.
    """
    return min(epsilon, order * epsilon**2 / 2)


def adaptive_epsilon(release: Release, *, orders: Sequence[float], delta: float) -> float:
    """Return the least budget for which the filter admits the release.

    The release stays within the budget of *some* order, and is then what the filter of this order alone
    would admit. The δ of all orders therefore add up, and each gets its part of ``delta``.
    """
    if release.is_nothing:
        return 0.0
    if delta <= 0:
        return math.inf
    return min(
        float(compute_epsilon([order], [spent], delta / len(orders))[0])
        for order, spent in zip(orders, release.divergence(orders), strict=True)
    )


def best_order(expected: Release, *, epsilon: float, delta: float) -> float:
    """Return the order at which the largest multiple of the expected release stays within ε at δ."""
    spent = expected.divergence(CANDIDATES)
    rooms = {
        order: room(order, epsilon=epsilon, delta=delta) / one
        for order, one in zip(CANDIDATES, spent, strict=True)
        if one > 0
    }
    return float(max(rooms, key=rooms.__getitem__)) if rooms else ORDERS[0]


def room(order: float, *, epsilon: float, delta: float) -> float:
    """Return the divergence for ε at δ (Canonne et al. 2020, arXiv 2004.00010, Proposition 12)."""
    return epsilon - math.log1p(-1 / order) + math.log(delta * order) / (order - 1)


def has_room(orders: Sequence[float], *, epsilon: float, delta: float) -> bool:
    """Tell whether anything at all fits into a budget at some of the orders."""
    return any(room(order, epsilon=epsilon, delta=delta / len(orders)) > 0 for order in orders)
