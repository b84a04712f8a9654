"""The evidence in released values that a unit is in the data."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from nss_train.privacy.accounting.plan import PrivacyPlan

Floats = npt.NDArray[np.float64]

NORM = 10.0
"""Norm of a unit's gradient, in units of the clip."""


def log_likelihood_ratio(values: Floats, plan: PrivacyPlan) -> Floats:
    """Return ln p(value | in the data) - ln p(value | not in it), of the same shape; sum it over steps.

    ``values`` are a step's releases along the gradient of a unit of the largest norm, in units of the
    clip: N(0, σ²) without the unit, N(1, σ²) with probability q with it. By Neyman and Pearson no other
    statistic distinguishes the two better.
    """
    drawn = (values - 0.5) / plan.gradient_noise**2
    rate = plan.sampling_rate
    return drawn if rate == 1 else np.logaddexp(np.log1p(-rate), np.log(rate) + drawn)
