"""Lower bounds on ε that guesses prove, with a stated confidence."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy import stats
from scipy.special import expit

from nss_train.privacy.evidence.likelihood import Floats

CANDIDATES = 400
"""Number of thresholds that are tried."""
LARGEST_EPSILON = 50.0
"""Upper end of the search for ε: no realistic number of guesses proves more."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Threshold:
    """A rule for guessing: the unit is in the data when its score is above ``at``."""

    at: float
    tells_in: bool
    """``True`` if the guess "in" proves more than the guess "out"."""


def epsilon_of_scores(
    inside: Floats, outside: Floats, *, delta: float, alpha: float, threshold: Threshold
) -> float:
    """Return the ε that scores in and out of the data prove, with error probability ``alpha`` at most.

    An (ε, δ)-private mechanism has P(guess | true) ≤ e^ε · P(guess | wrong) + δ for each guess (Kairouz
    et al. 2015, arXiv 1311.0776); both are bounded by Clopper and Pearson's intervals. The threshold
    must have been chosen without these scores.
    """
    true, wrong = (inside, outside) if threshold.tells_in else (outside, inside)

    def hits(scores: Floats) -> int:
        return int(np.count_nonzero((scores > threshold.at) == threshold.tells_in))

    found = _epsilon(
        np.array([hits(true)]), len(true), np.array([hits(wrong)]), len(wrong), delta=delta, alpha=alpha
    )
    return float(found[0])


def best_threshold(inside: Floats, outside: Floats, *, delta: float, alpha: float) -> Threshold:
    """Return the threshold by which these scores prove the most."""
    candidates = np.quantile(np.concatenate([inside, outside]), np.linspace(0, 1, CANDIDATES))
    above = [
        len(side) - np.searchsorted(np.sort(side), candidates, side="right") for side in (inside, outside)
    ]
    below = [len(side) - count for side, count in zip((inside, outside), above, strict=True)]
    sizes = len(inside), len(outside)
    telling_in = _epsilon(above[0], sizes[0], above[1], sizes[1], delta=delta, alpha=alpha)
    telling_out = _epsilon(below[1], sizes[1], below[0], sizes[0], delta=delta, alpha=alpha)
    better = telling_in if telling_in.max() >= telling_out.max() else telling_out
    return Threshold(at=float(candidates[better.argmax()]), tells_in=better is telling_in)


def _epsilon(
    true: np.ndarray, trues: int, wrong: np.ndarray, wrongs: int, *, delta: float, alpha: float
) -> Floats:
    """Return ε for each of several numbers of hits."""
    least = np.where(true > 0, stats.beta.ppf(alpha / 2, np.maximum(true, 1), trues - true + 1), 0.0)
    most = np.where(
        wrong < wrongs, stats.beta.ppf(1 - alpha / 2, wrong + 1, np.maximum(wrongs - wrong, 1)), 1.0
    )
    found: Floats = np.log(np.maximum(least - delta, 1e-300) / most).clip(min=0.0)
    return found


def epsilon_of_guesses(*, canaries: int, guesses: int, correct: int, delta: float, alpha: float) -> float:
    """Return the largest ε that ``correct`` guesses refute, with error probability ``alpha`` at most."""

    def refuted(epsilon: float) -> bool:
        return (
            chance(canaries=canaries, guesses=guesses, correct=correct, epsilon=epsilon, delta=delta) < alpha
        )

    return _last(refuted, 0.0, LARGEST_EPSILON)


def epsilon_of_independent_guesses(
    *, canaries: int, right: int, wrong: int, delta: float, alpha: float
) -> float:
    """Return the ε that guesses about independent canaries prove, with error probability ``alpha``.

    Each canary is in or out by a fair coin, and is guessed right, wrong or not at all. Over the coin the
    inequalities for the guesses "in" and "out" add up to P(right) ≤ e^ε · P(wrong) + δ; both are bounded by
    Clopper and Pearson's intervals.

    Coordinates and coins are assumed independent, while :func:`epsilon_of_guesses` assumes nothing. But the
    latter adds a term in 2 · canaries · δ to the error probability: at δ = 0.01 it proves nothing, whatever
    the guesses.
    """
    found = _epsilon(np.array([right]), canaries, np.array([wrong]), canaries, delta=delta, alpha=alpha)
    return float(found[0])


def chance(*, canaries: int, guesses: int, correct: int, epsilon: float, delta: float) -> float:
    """Return the highest probability of ``correct`` or more right guesses under (ε, δ)-privacy.

    Each canary was in or out by a fair coin, and the guesses name some of them. Steinke, Nasr and
    Jagielski 2023 (arXiv 2305.08846), Corollary 5.4: with W ~ Binomial(guesses, e^ε / (1 + e^ε)),
    P(W ≥ correct) + 2 · canaries · δ · max_i P(correct > W ≥ correct - i) / i.
    """
    right = expit(epsilon)
    tail = float(stats.binom.sf(correct - 1, guesses, right))
    if correct == 0 or delta == 0:
        return min(1.0, tail)
    missed = np.arange(1, correct + 1)
    nearly = np.cumsum(stats.binom.pmf(correct - missed, guesses, right))
    return min(1.0, tail + 2 * canaries * delta * float((nearly / missed).max()))


def _last(holds: Callable[[float], bool], low: float, high: float) -> float:
    """Return the largest value for which a monotone condition holds; ``low`` when it never does."""
    if not holds(low):
        return low
    for _ in range(40):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
