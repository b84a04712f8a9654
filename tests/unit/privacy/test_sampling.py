"""Units join a step by coins of their own, and no one can toss the same coins again."""

from __future__ import annotations

import pickle
from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness

DRAWS, UNITS, RATE = 10_000, 200, 0.03
FALSE_ALARM = 1e-4


@pytest.fixture(scope="module")
def draws() -> list[np.ndarray]:
    sampler = PoissonSampler(units=UNITS, rate=RATE, randomness=SecretRandomness())
    return [sampler.draw() for _ in range(DRAWS)]


def test_the_number_of_drawn_units_is_binomial(
    draws: list[np.ndarray], record_property: Callable[[str, object], None]
) -> None:
    sizes = np.bincount([len(drawn) for drawn in draws], minlength=UNITS + 1)
    expected = DRAWS * stats.binom(UNITS, RATE).pmf(np.arange(UNITS + 1))
    # Sizes that are hardly ever drawn are counted together.
    common = expected >= 5
    found = [*sizes[common], sizes[~common].sum()]
    fitting = stats.chisquare(found, [*expected[common], expected[~common].sum()])
    record_property("p_value", float(fitting.pvalue))
    assert fitting.pvalue > FALSE_ALARM


def test_units_are_drawn_independently_of_each_other(draws: list[np.ndarray]) -> None:
    joined = np.zeros((DRAWS, UNITS))
    for row, drawn in zip(joined, draws, strict=True):
        row[drawn] = 1
    together = (joined[:, ::2] * joined[:, 1::2]).sum(0)
    expected = DRAWS * RATE**2
    # How often disjoint pairs are drawn together is independent and binomial, if the coins are.
    spread = ((together - expected) ** 2).sum() / (expected * (1 - RATE**2))
    assert FALSE_ALARM < stats.chi2(UNITS // 2).sf(spread) < 1 - FALSE_ALARM


def test_each_unit_is_drawn_at_the_same_rate(draws: list[np.ndarray]) -> None:
    counts = np.bincount(np.concatenate(draws), minlength=UNITS)
    spread = ((counts - DRAWS * RATE) ** 2).sum() / (DRAWS * RATE * (1 - RATE))
    assert FALSE_ALARM < stats.chi2(UNITS).sf(spread) < 1 - FALSE_ALARM


def test_nobody_at_all_is_a_draw_like_any_other() -> None:
    sampler = PoissonSampler(units=3, rate=0.01, randomness=SecretRandomness())
    assert any(len(sampler.draw()) == 0 for _ in range(100))


def test_two_sources_share_nothing() -> None:
    first, second = SecretRandomness(), SecretRandomness()
    assert not np.array_equal(first.gaussian(100), second.gaussian(100))
    assert not np.array_equal(first.heads(500, 0.5), second.heads(500, 0.5))


def test_a_source_cannot_be_stored() -> None:
    with pytest.raises(TypeError, match="never stored"):
        pickle.dumps(SecretRandomness())
