"""What a mechanism costs: ε at a δ, by Google's dp-accounting, for neighbours by zero-out."""

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
"""Below the first the guarantee is one in name only; above the second nothing is learned."""
NOISE_TOLERANCE = 1e-4
ZERO_OUT = NeighboringRelation.REPLACE_SPECIAL
"""One unit's records turn into null records, which have no effect; how many places there are is public."""
_NARROW = 0.85
_PLD_INTERVAL = 1e-4
"""Width of the intervals of privacy losses: the accountant's own."""
_COARSE_INTERVALS = (1e-2, 1e-3)
"""They take a hundredth and a tenth of its time, and say too much (connect-the-dots), never too little."""
_CLOSE = 0.999
"""A found noise that spends this share of ε is as good as the least one."""
RDP_ORDERS = (*(1 + i / 10 for i in range(5, 100)), *range(11, 64), 128, 256, 512, 1024)
"""From 1.5: the smaller ones converge slowly, and no ε that is of use is found there."""


class Accountant(StrEnum):
    """How privacy loss is composed."""

    PLD = "pld"
    """Privacy loss distributions with connect-the-dots (Doroshenko et al. 2022, arXiv 2207.04380): tight."""
    RDP = "rdp"
    """Rényi differential privacy (Mironov 2017, arXiv 1702.07476): never below PLD; the cross-check."""

    def fresh(self) -> PrivacyAccountant:
        if self is Accountant.PLD:
            return PLDAccountant(neighboring_relation=ZERO_OUT)
        return RdpAccountant(orders=RDP_ORDERS, neighboring_relation=ZERO_OUT)


def training(*, noise_multiplier: float, sampling_rate: float, steps: int) -> DpEvent:
    """So many steps of a Gaussian mechanism on Poisson-sampled units.

    ``noise_multiplier`` is the noise's standard deviation in units of the sensitivity.
    """
    step = PoissonSampledDpEvent(sampling_rate, GaussianDpEvent(noise_multiplier))
    return SelfComposedDpEvent(step, steps)


def together(*events: DpEvent) -> DpEvent:
    """All of them on the same data."""
    return ComposedDpEvent(list(events))


def spent(event: DpEvent, delta: float, accountant: Accountant = Accountant.PLD) -> float:
    """The smallest ε for which the event is (ε, ``delta``)-differentially private."""
    with _without_warnings():
        return float(accountant.fresh().compose(event).get_epsilon(delta))


@contextmanager
def _without_warnings() -> Iterator[None]:
    """An order of RDP that does not converge is left out with a warning; ε never becomes smaller by it."""
    log = logging.getLogger("absl")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


@lru_cache(maxsize=64)
def spent_in_steps(*, noise_multiplier: float, sampling_rate: float, steps: int, delta: float) -> float:
    """What :func:`spent` says of a training, by PLD; many numbers of steps cost little more than one."""
    step = _one_step(noise_multiplier, sampling_rate, _PLD_INTERVAL)
    return float(step.self_compose(steps).get_epsilon_for_delta(delta))


def spent_in_steps_at_most(
    *, noise_multiplier: float, sampling_rate: float, steps: int, delta: float
) -> float:
    """A little more than :func:`spent_in_steps` says, in a tenth of its time."""
    step = _one_step(noise_multiplier, sampling_rate, _COARSE_INTERVALS[-1])
    return float(step.self_compose(steps).get_epsilon_for_delta(delta))


@lru_cache(maxsize=8)
def _one_step(noise_multiplier: float, sampling_rate: float, interval: float) -> PrivacyLossDistribution:
    """As the accountant makes it; the slow part of accounting for a training."""
    return from_gaussian_mechanism(
        noise_multiplier,
        value_discretization_interval=interval,
        sampling_prob=sampling_rate,
        neighboring_relation=ZERO_OUT,
    )


def noise_multiplier(*, epsilon: float, delta: float, sampling_rate: float, steps: int) -> float:
    """The least noise with which a training stays within (ε, δ), rounded to the safe side.

    What it spends is 99.9% of ε at least. :data:`SMALLEST_NOISE` at least, ``inf`` when more than
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
    """For the noise of a training that stays within (ε, δ)."""

    epsilon: float
    delta: float
    sampling_rate: float
    steps: int

    def cost(self, noise: float, accountant: _MakeAccountant) -> float:
        """ε of the training with a noise."""
        with _without_warnings():
            return float(accountant().compose(self._event(noise)).get_epsilon(self.delta))

    def by_rdp(self) -> float:
        """A noise that is enough and not far from the least: fast, and never too little."""
        if not self.cost(LARGEST_NOISE, _RDP) <= self.epsilon < self.cost(SMALLEST_NOISE, _RDP):
            return LARGEST_NOISE
        return self._least(SMALLEST_NOISE, LARGEST_NOISE, _RDP, 1e-2)

    def below(self, enough: float, accountant: _MakeAccountant) -> float:
        """The least noise up to one that is enough; that one where this accountant does not find it so."""
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
