"""The filter: known figures, OpenDP's own filter, and what it admits whatever was seen before."""

from __future__ import annotations

import math
from itertools import accumulate

import pytest
from hypothesis import assume, given
from hypothesis import settings as profile
from hypothesis import strategies as st
from opendp import prelude as dp

from nss_train.privacy.accounting import renyi_filter
from nss_train.privacy.accounting.accountant import spent, together, training
from nss_train.privacy.accounting.renyi_filter import ORDERS, Release, adaptive_epsilon, best_order

Mix = dict[tuple[float, float], int]
TWO: Mix = {(1.0, 0.01): 1000, (1.5, 0.02): 500}


# As if all were fixed, by one well-chosen order, and by the eight of the default.
@pytest.mark.parametrize(
    ("steps", "delta", "order", "costs"),
    [
        (TWO, 1e-6, 8, (2.637, 2.92, 3.22)),
        ({(0.8, 0.05): 100}, 1e-6, 3, (6.731, 7.93, 8.97)),
        ({(1.0, 0.0064): 782}, 1e-6, 8, (1.199, 1.79, 2.09)),
        ({(1.3, 0.0025): 6000}, 1e-5, 16, (0.640, 0.77, 0.91)),
    ],
)
def test_what_adaptivity_costs(
    steps: Mix, delta: float, order: float, costs: tuple[float, float, float]
) -> None:
    fixed, one, eight = costs
    events = [training(noise_multiplier=s, sampling_rate=q, steps=n) for (s, q), n in steps.items()]
    assert spent(together(*events), delta) == pytest.approx(fixed, abs=2e-3)
    release = Release(steps=steps)
    assert adaptive_epsilon(release, orders=[order], delta=delta) == pytest.approx(one, abs=6e-3)
    assert adaptive_epsilon(release, orders=ORDERS, delta=delta) == pytest.approx(eight, abs=6e-3)


@pytest.mark.heavy
@profile(max_examples=50)
@given(st.lists(st.floats(0.5, 8.0), min_size=1, max_size=12), st.sampled_from(ORDERS), st.floats(0.5, 10.0))
def test_gaussians_pass_as_they_pass_the_filter_of_opendp(
    noises: list[float], order: float, epsilon: float
) -> None:
    """Divergence at α is α·ρ there, and ρ is what OpenDP 0.16 filters. It knows no sampled Gaussians."""
    room = renyi_filter.room(order, epsilon=epsilon, delta=1e-6)
    assume(room > 0)
    released: Mix = {}
    for noise in noises:
        released[noise, 1.0] = released.get((noise, 1.0), 0) + 1
    sums = accumulate(order / (2 * noise**2) for noise in noises)
    assume(not any(math.isclose(one, room, rel_tol=1e-6) for one in sums))  # they round to different sides
    ours = adaptive_epsilon(Release(steps=released), orders=[order], delta=1e-6) <= epsilon
    assert ours is passes_opendp(noises, room / order)


def passes_opendp(noises: list[float], rho: float) -> bool:
    dp.enable_features("contrib")
    space = dp.atom_domain(T=float, nan=False), dp.absolute_distance(T=float)
    odometer = dp.c.make_fully_adaptive_composition(*space, output_measure=dp.zero_concentrated_divergence())
    ask = dp.c.make_privacy_filter(odometer, d_in=1.0, d_out=rho)(0.0)
    try:
        for noise in noises:
            ask(dp.m.make_gaussian(*space, scale=noise))
    except dp.OpenDPException:
        return False
    return True


@pytest.mark.parametrize("epsilon", [0.01, 0.08, 0.5, 3.0])
@pytest.mark.parametrize("order", [2.0, 8.0, 32.0])
def test_a_by_product_costs_at_least_what_randomized_response_diverges(epsilon: float, order: float) -> None:
    """Randomized response is the worst mechanism of a pure ε."""
    yes = math.exp(epsilon) / (1 + math.exp(epsilon))
    no = 1 - yes
    divergence = math.log(yes**order * no ** (1 - order) + no**order * yes ** (1 - order)) / (order - 1)
    (charged,) = Release(steps={}, pure=(epsilon,)).divergence([order])
    assert divergence <= charged <= epsilon


def test_nothing_costs_nothing_and_no_delta_affords_nothing() -> None:
    assert adaptive_epsilon(Release(steps={(1.0, 0.1): 0}), orders=ORDERS, delta=0.0) == 0
    assert adaptive_epsilon(Release(steps=TWO), orders=ORDERS, delta=0.0) == math.inf


@profile(max_examples=30)
@given(st.integers(1, 500), st.integers(1, 500), st.floats(0.7, 4), st.floats(1e-3, 0.2))
def test_the_figure_never_falls_with_another_job(first: int, more: int, noise: float, rate: float) -> None:
    """Otherwise a job could make room for the next."""

    def cost(steps: int) -> float:
        return adaptive_epsilon(Release(steps={(noise, rate): steps}), orders=ORDERS, delta=1e-6)

    assert cost(first) <= cost(first + more) * (1 + 1e-12)


@pytest.mark.parametrize(("steps", "epsilon"), [({(0.8, 0.05): 100}, 16.0), ({(1.3, 0.0025): 6000}, 3.0)])
def test_the_order_for_known_jobs_lets_in_the_most_of_them(steps: Mix, epsilon: float) -> None:
    def jobs_that_fit(order: float) -> int:
        return next(
            count - 1
            for count in range(1, 500)
            if adaptive_epsilon(
                Release(steps={one: count * n for one, n in steps.items()}), orders=[order], delta=1e-6
            )
            > epsilon
        )

    best = best_order(Release(steps=steps), epsilon=epsilon, delta=1e-6)
    assert jobs_that_fit(best) == max(jobs_that_fit(order) for order in (*ORDERS, best))
    assert jobs_that_fit(best) > 1
