"""Plans of invented jobs."""

from __future__ import annotations

from typing import Any

from nss_train.privacy.accounting.plan import ByProduct, PrivacyPlan


def plan(**changes: Any) -> PrivacyPlan:
    """Return a plan of a thousand steps with σ = 1 and q = 0.01 on records: ε ≈ 1.9 at δ = 1e-6."""
    given = {
        "dataset": "birds",
        "unit": "record",
        "units": 10_000,
        "epsilon": 2.0,
        "delta": 1e-6,
        "clip": 1.0,
        "batch": 100,
        "sampling_rate": 0.01,
        "steps": 1000,
        "noise_multiplier": 1.0,
    }
    return PrivacyPlan.model_validate(given | changes)


def schema(epsilon: float, delta: float) -> tuple[ByProduct, ...]:
    return (ByProduct(name="schema", epsilon=epsilon, delta=delta),)
