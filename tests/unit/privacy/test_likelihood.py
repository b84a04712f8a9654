"""The evidence in a released value is the likelihood ratio of the two worlds, as scipy computes it."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from nss_train.privacy.evidence.likelihood import log_likelihood_ratio

from .plans import plan


@given(
    value=st.floats(-30, 30), rate=st.floats(0.001, 1.0), noise=st.floats(0.3, 20.0), reported=st.booleans()
)
def test_it_is_the_logarithm_of_the_ratio_of_the_densities(
    value: float, rate: float, noise: float, reported: bool
) -> None:
    asked = plan(sampling_rate=rate, noise_multiplier=noise, report_loss=reported)
    deviation = asked.gradient_noise
    without, with_it = (stats.norm.logpdf(value, loc=mean, scale=deviation) for mean in (0, 1))
    mixed = with_it if rate == 1 else np.logaddexp(np.log1p(-rate) + without, np.log(rate) + with_it)
    found = log_likelihood_ratio(np.asarray([value]), asked)
    assert float(found[0]) == pytest.approx(mixed - without, rel=1e-6, abs=1e-9)


def test_a_value_is_better_evidence_the_nearer_it_is_to_the_clip() -> None:
    found = log_likelihood_ratio(np.linspace(-3, 3, 50), plan(sampling_rate=0.1))
    assert (np.diff(found) > 0).all()
    assert found[0] < 0 < found[-1]
