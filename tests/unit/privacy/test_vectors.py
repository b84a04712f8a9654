"""The cost of trainings: published figures, an independent accountant, and the search for the noise."""

from __future__ import annotations

import math
import random
import warnings

import pytest

from nss_train.privacy.accounting import accountant
from nss_train.privacy.accounting.accountant import Accountant, noise_multiplier, spent, training

PLD, RDP = Accountant.PLD, Accountant.RDP


def settings(count: int) -> list[tuple[float, float, int, float]]:
    """Return random noise, rate, steps and δ of trainings."""
    rng = random.Random(5)

    def drawn() -> tuple[float, float, int, float]:
        steps, delta = int(10 ** rng.uniform(2, 3.5)), 10 ** rng.uniform(-7, -4)
        return rng.uniform(0.8, 3), 10 ** rng.uniform(-3, -1.3), steps, delta

    return [drawn() for _ in range(count)]


SETTINGS = settings(20)


# PRV and PLD approximate the same exact value; the references are the libraries' own documentation.
@pytest.mark.parametrize(
    ("by", "given", "epsilon"),
    [
        (PLD, (0.8, 0.05, 100, 1e-6), 6.74105),
        (PLD, (1.5, 0.05, 1000, 1e-6), 6.20997),
        (RDP, (1.5, 0.04, 2250, 1e-5), 7.32911117),
        (RDP, (1.3, 0.0025, 6000, 1e-5), 0.7242234),
        (PLD, (1.0, 0.0064, 782, 1e-6), 1.199),
    ],
)
def test_the_cost_of_a_training_is_the_published_one(
    by: Accountant, given: tuple[float, float, int, float], epsilon: float
) -> None:
    noise, rate, steps, delta = given
    event = training(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    assert spent(event, delta, by) == pytest.approx(epsilon, rel=0.01)


@pytest.mark.parametrize(("by", "epsilon"), [(PLD, 2.6365), (RDP, 2.9121)])
def test_two_trainings_cost_less_together_than_their_sum(by: Accountant, epsilon: float) -> None:
    first = training(noise_multiplier=1.0, sampling_rate=0.01, steps=1000)
    second = training(noise_multiplier=1.5, sampling_rate=0.02, steps=500)
    assert spent(accountant.together(first, second), 1e-6, by) == pytest.approx(epsilon, rel=0.01)
    assert spent(first, 1e-6) + spent(second, 1e-6) == pytest.approx(3.7013, rel=0.01)


@pytest.mark.heavy
@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SETTINGS)
def test_the_tight_accountant_is_below_the_loose_one_and_agrees_with_a_third(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    event = training(noise_multiplier=noise, sampling_rate=rate, steps=steps)
    pld = spent(event, delta)
    assert pld <= spent(event, delta, RDP)
    assert pld == pytest.approx(prv(noise, rate, steps, delta), rel=0.01, abs=0.01)


def prv(noise: float, rate: float, steps: int, delta: float) -> float:
    """Return ε by the accountant of Opacus (Gopi et al. 2021, arXiv 2106.02848)."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the import of Opacus warns of is not ours
        from opacus.accountants import PRVAccountant

        found = PRVAccountant()
        found.history = [(noise, rate, steps)]
        # It reports an upper bound: by default 0.01 above its estimate.
        return float(found.get_epsilon(delta, eps_error=0.001))


@pytest.mark.heavy
@pytest.mark.parametrize(("noise", "rate", "steps", "delta"), SETTINGS[:4])
def test_the_search_finds_the_noise_that_a_cost_came_from(
    noise: float, rate: float, steps: int, delta: float
) -> None:
    epsilon = spent(training(noise_multiplier=noise, sampling_rate=rate, steps=steps), delta)
    found = noise_multiplier(epsilon=epsilon, delta=delta, sampling_rate=rate, steps=steps)
    assert found == pytest.approx(noise, abs=1e-3)
    assert spent(training(noise_multiplier=found, sampling_rate=rate, steps=steps), delta) <= epsilon


def test_what_no_noise_can_keep_is_infinite() -> None:
    assert math.isinf(noise_multiplier(epsilon=1e-4, delta=1e-9, sampling_rate=0.5, steps=1000))
