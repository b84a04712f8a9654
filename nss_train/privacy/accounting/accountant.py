"""The cost of a mechanism: ε at a δ, by Google's dp-accounting, for zero-out neighbours."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from functools import lru_cache, partial

from dp_accounting import (
    ComposedDpEvent,
    DpEvent,
    GaussianDpEvent,
    NeighboringRelation,
    PoissonSampledDpEvent,
    PrivacyAccountant,
    SelfComposedDpEvent,
)
from dp_accounting.mechanism_calibration import ExplicitBracketInterval, calibrate_dp_mechanism
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import PrivacyLossDistribution, from_gaussian_mechanism
from dp_accounting.rdp import RdpAccountant

SMALLEST_NOISE, LARGEST_NOISE = 0.2, 100.0
"""Range of the noise: below it the guarantee is meaningless; above it nothing is learned."""
NOISE_TOLERANCE = 1e-4
ZERO_OUT = NeighboringRelation.REPLACE_SPECIAL
"""One unit's records become null records, which have no effect; the number of places is public."""
_NARROW = 0.85
_PLD_INTERVAL = 1e-4
"""Width of the intervals of privacy losses: the accountant's default."""
_COARSE_INTERVALS = (1e-2, 1e-3)
"""Coarser widths, in a hundredth and a tenth of the time: ε is never less (connect-the-dots)."""
_CLOSE = 0.999
"""Share of ε; a noise that spends it is as good as the least one."""
RDP_ORDERS = (*(1 + i / 10 for i in range(5, 100)), *range(11, 64), 128, 256, 512, 1024)
"""Rényi orders from 1.5: smaller ones converge slowly, and give no useful ε."""


class Accountant(StrEnum):
    """The method by which privacy loss is composed."""

    PLD = "pld"
    """Privacy loss distributions with connect-the-dots (Doroshenko et al. 2022, arXiv 2207.04380): tight."""
    RDP = "rdp"
    """Rényi differential privacy (Mironov 2017, arXiv 1702.07476): never below PLD; the cross-check."""

    def fresh(self) -> PrivacyAccountant:
        if self is Accountant.PLD:
            return PLDAccountant(neighboring_relation=ZERO_OUT)
        return RdpAccountant(orders=RDP_ORDERS, neighboring_relation=ZERO_OUT)


def training(*, noise_multiplier: float, sampling_rate: float, steps: int) -> DpEvent:
    """Return the event of ``steps`` Gaussian mechanisms on Poisson-sampled units.

    ``noise_multiplier`` is the noise's standard deviation in units of the sensitivity.
    """
    step = PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier))
    return SelfComposedDpEvent(step, steps)


def together(*events: DpEvent) -> DpEvent:
    """Return the composition of all events on the same data."""
    return ComposedDpEvent(list(events))


def spent(event: DpEvent, delta: float, accountant: Accountant = Accountant.PLD) -> float:
    """Return the smallest ε for which the event is (ε, ``delta``)-differentially private."""
    with _without_warnings():
        return float(accountant.fresh().compose(event).get_epsilon(delta))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """Silence the warnings of RDP orders left out for not converging: that never makes ε smaller."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@lru_cache(maxsize=64)
def spent_in_steps(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """Return :func:`spent` of a training, by PLD; further numbers of steps cost little extra time."""
    step = _one_step(noise_multiplier, sampling_rate, _PLD_INTERVAL)
    return float(step.self_compose(steps).get_epsilon_for_delta(delta))


def spent_in_steps_at_most(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float
) -> float:
    """Return an upper bound just above :func:`spent_in_steps`, in a tenth of its time."""
    step = _one_step(noise_multiplier, sampling_rate, _COARSE_INTERVALS[-1])
    return float(step.self_compose(steps).get_epsilon_for_delta(delta))


@lru_cache(maxsize=8)
def _one_step(noise_multiplier: float, sampling_rate: float, interval: float) -> PrivacyLossDistribution:
    """Return the accountant's loss distribution of one step, the slow part of accounting for a training."""
    return from_gaussian_mechanism(
        noise_multiplier,
        value_discretization_interval=interval,
        sampling_prob=sampling_rate,
        neighboring_relation=ZERO_OUT,
    )


def noise_multiplier(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """Return the least noise with which a training stays within (ε, δ), rounded to the safe side.

    It spends at least 99.9% of ε. The result is at least :data:`SMALLEST_NOISE`, and ``inf`` when more than
    :data:`LARGEST_NOISE` would be needed.
    """
    search = _Search(epsilon=epsilon, delta=delta, sampling_rate=sampling_rate, steps=steps)
    if search.cost(LARGEST_NOISE, _PLD) > epsilon:
        return math.inf
    enough = search.by_rdp()
    for accountant in _COARSE:
        found = search.below(enough, accountant)
        spent_by_it = search.cost(found, _PLD)
        if spent_by_it <= epsilon:
            enough = found
            if spent_by_it >= _CLOSE * epsilon:
                return found
    return search.below(enough, _PLD)


_MakeAccountant = Callable[[], PrivacyAccountant]
_PLD, _RDP = Accountant.PLD.fresh, Accountant.RDP.fresh
_COARSE = tuple(
    partial(PLDAccountant, neighboring_relation=ZERO_OUT, value_discretization_interval=interval)
    for interval in _COARSE_INTERVALS
)


@dataclass(frozen=True, kw_only=True, slots=True)
class _Search:
    """The search for the least noise with which a training stays within (ε, δ)."""

    epsilon: float
    delta: float
    sampling_rate: float
    steps: int

    def cost(self, noise: float, accountant: _MakeAccountant) -> float:
        """Return ε of the training with this noise."""
        with _without_warnings():
            return float(accountant().compose(self._event(noise)).get_epsilon(self.delta))

    def by_rdp(self) -> float:
        """Return a noise that suffices and is close to the least: fast, and never too small."""
        if not self.cost(LARGEST_NOISE, _RDP) <= self.epsilon < self.cost(SMALLEST_NOISE, _RDP):
            return LARGEST_NOISE
        return self._least(SMALLEST_NOISE, LARGEST_NOISE, _RDP, 1e-2)

    def below(self, enough: float, accountant: _MakeAccountant) -> float:
        """Return the least sufficient noise up to ``enough``, or ``enough`` if this accountant rejects it."""
        low = high = enough
        while self.cost(low, accountant) <= self.epsilon:
            if low == SMALLEST_NOISE:
                return SMALLEST_NOISE
            low, high = max(_NARROW * low, SMALLEST_NOISE), low
        return enough if low == enough else self._least(low, high, accountant, NOISE_TOLERANCE)

    def _least(self, low: float, high: float, accountant: _MakeAccountant, tolerance: float) -> float:
        bracket = ExplicitBracketInterval(low, high)
        with _without_warnings():
            return float(
                calibrate_dp_mechanism(
                    accountant, self._event, self.epsilon, self.delta, bracket, tol=tolerance
                )
            )

    def _event(self, noise: float) -> DpEvent:
        return training(noise_multiplier=noise, sampling_rate=self.sampling_rate, steps=self.steps)
