"""Bounds that guesses prove, against published values and against mechanisms whose ε is known."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from nss_train.privacy.evidence.bounds import (
    Threshold,
    best_threshold,
    chance,
    epsilon_of_guesses,
    epsilon_of_scores,
)

ALPHA = 0.05


def test_the_bound_of_guesses_is_that_of_the_paper() -> None:
    # Steinke, Nasr and Jagielski 2023, appendix D.
    found = epsilon_of_guesses(canaries=1000, guesses=100, correct=75, delta=1e-4, alpha=ALPHA)
    assert found == pytest.approx(0.673, abs=5e-4)


def test_without_delta_the_chance_is_that_of_randomized_response() -> None:
    found = chance(canaries=50, guesses=50, correct=40, epsilon=1.0, delta=0.0)
    assert found == pytest.approx(stats.binom.sf(39, 50, math.e / (1 + math.e)))


def test_the_chance_grows_with_epsilon_and_delta() -> None:
    given = {"canaries": 200, "guesses": 100, "correct": 80}
    by_epsilon = [chance(**given, epsilon=e, delta=1e-5) for e in np.linspace(0, 6, 30)]
    by_delta = [chance(**given, epsilon=0.8, delta=d) for d in (0, 1e-6, 1e-5, 1e-4)]
    assert by_epsilon == sorted(by_epsilon)
    assert by_delta == sorted(set(by_delta))


def test_guesses_at_random_prove_nothing() -> None:
    assert epsilon_of_guesses(canaries=1000, guesses=1000, correct=500, delta=0.0, alpha=ALPHA) == 0.0
    assert epsilon_of_guesses(canaries=1000, guesses=1000, correct=0, delta=1e-5, alpha=ALPHA) == 0.0


def test_more_than_8_is_proved_by_so_many_right_guesses_only() -> None:
    def proved(guesses: int) -> float:
        return epsilon_of_guesses(canaries=guesses, guesses=guesses, correct=guesses, delta=0.0, alpha=ALPHA)

    # 0.05 = (1 - e^-8)^8,930, nearly.
    assert proved(8900) < 8 < proved(8950)


def test_randomized_response_is_never_refuted() -> None:
    generator, epsilon, wrong = np.random.default_rng(), 1.0, 0
    for _ in range(200):
        correct = int((generator.random(500) < math.e / (1 + math.e)).sum())
        wrong += (
            epsilon_of_guesses(canaries=500, guesses=500, correct=correct, delta=0.0, alpha=1e-3) > epsilon
        )
    # Each has a chance of 1 in 1,000; five of 200 happen once in 400,000 times.
    assert wrong < 5


@pytest.mark.parametrize("tells_in", [True, False])
def test_scores_of_a_sampled_gaussian_mechanism_prove_most_of_its_epsilon(tells_in: bool) -> None:
    generator, count, rate, epsilon = np.random.default_rng(), 200_000, 0.5, 1.2
    drawn = generator.random(count) < rate
    sampled, silent = drawn + generator.standard_normal(count), generator.standard_normal(count)
    # δ(ε) is the most by which P(sampled > t) exceeds e^ε · P(silent > t).
    at = np.linspace(-3, 6, 1000)
    above = rate * stats.norm.sf(at - 1) + (1 - rate) * stats.norm.sf(at)
    delta = float((above - math.exp(epsilon) * stats.norm.sf(at)).max())
    inside, outside = (sampled, silent) if tells_in else (-silent, -sampled)
    chosen = best_threshold(inside[::2], outside[::2], delta=delta, alpha=1e-5)
    assert chosen.tells_in is tells_in
    found = epsilon_of_scores(inside[1::2], outside[1::2], delta=delta, alpha=1e-5, threshold=chosen)
    assert 0.6 < found <= epsilon


def test_scores_that_never_err_prove_what_their_number_affords() -> None:
    inside, outside = np.ones(1000), np.zeros(1000)
    threshold = Threshold(at=0.5, tells_in=True)
    found = epsilon_of_scores(inside, outside, delta=0.0, alpha=ALPHA, threshold=threshold)
    # Clopper and Pearson: both rates end at 1 - (α / 2)^(1 / 1000).
    most = 1 - (ALPHA / 2) ** (1 / 1000)
    assert found == pytest.approx(math.log((1 - most) / most))
