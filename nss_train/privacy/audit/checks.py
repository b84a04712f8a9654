"""Statements, with p-values, that must hold for an honest mechanism besides the bound."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy import stats

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.observations import CROWD, Observations
from nss_train.privacy.evidence.likelihood import Floats


@dataclass(frozen=True, kw_only=True, slots=True)
class Check:
    """A statement and the probability of such data, or more extreme, if it were true."""

    name: str
    statement: str
    p_value: float


def checks(seen: Observations, plan: PrivacyPlan) -> Iterator[Check]:
    """Yield all checks; each is an exact test, or one of so many values that the normal law holds."""
    rate, noise = plan.sampling_rate, plan.gradient_noise
    outside, inside = _by_step(seen.outside), _by_step(seen.inside) - rate
    yield Check(
        name="noise",
        statement="the noise has the variance σ²C²",
        p_value=_variance(seen.outside / noise),
    )
    yield Check(
        name="noise of values",
        statement="the noise of one value says nothing about the next one's",
        p_value=_same(outside[:, :-1], outside[:, 1:]),
    )
    yield Check(
        name="noise of steps",
        statement="the noise of one step says nothing about the next one's",
        p_value=_same(outside[:-1], outside[1:]),
    )
    yield Check(
        name="noise of runs",
        statement="a replay with the same public seed has noise of its own",
        p_value=_same(outside, _by_step(seen.replay_outside)),
    )
    yield Check(
        name="draws of steps",
        statement="the units of one step say nothing about the next one's",
        p_value=_same(inside[:-1], inside[1:]),
    )
    yield Check(
        name="draws of runs",
        statement="a second run with the same public seed draws units of its own",
        p_value=_same(inside[: -plan.steps], inside[plan.steps :]),
    )
    yield Check(
        name="unit",
        statement="a unit adds a norm of C with probability q, and nothing otherwise",
        p_value=_mean(inside / math.sqrt(rate * (1 - rate) + noise**2)),
    )
    crowd_variance = CROWD * rate * (1 - rate) + noise**2
    yield Check(
        name="sampling",
        statement="the number of units in a step varies as that of independent coins",
        p_value=_variance((seen.crowd - CROWD * rate) / math.sqrt(crowd_variance)),
    )


def _by_step(values: Floats) -> Floats:
    """Return the values in shape (runs × steps, canaries)."""
    return values.reshape(-1, values.shape[-1])


def _variance(values: Floats) -> float:
    """Return the p-value of the variance of standard normal values."""
    total = float(np.square(values).sum())
    return float(2 * min(stats.chi2.sf(total, values.size), stats.chi2.cdf(total, values.size)))


def _mean(values: Floats) -> float:
    """Return the p-value of the mean of values of mean 0 and variance 1."""
    return _both_sides(float(values.sum()) / math.sqrt(values.size))


def _same(one: Floats, other: Floats) -> float:
    """Return the p-value of the correlation of independent values of mean 0; 0 for all-zero values."""
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    if norms == 0:
        return 0.0
    return _both_sides(float(np.vdot(one, other)) / norms * math.sqrt(one.size))


def _both_sides(deviation: float) -> float:
    return float(2 * stats.norm.sf(abs(deviation)))
