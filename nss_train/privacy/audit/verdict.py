"""The audit of the private step: what it claims, what an attacker proves, and whether that fits together."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.bounds import best_threshold, epsilon_of_scores
from nss_train.privacy.audit.checks import Check, checks
from nss_train.privacy.audit.evidence import Floats, log_likelihood_ratio
from nss_train.privacy.audit.observations import UNITS, MakeMechanism, Observations, observe, real

STEPS, SAMPLING_RATE, NOISE_MULTIPLIER, DELTA = 8, 0.25, 1.59, 1e-2
"""They cost ε = 1. At this δ 100,000 canaries prove most of it; at 1e-5 it would take many millions."""
RUNS = 1000
CHECKS = 8
ALARM = 1e-4 / (CHECKS + 1)
"""p-value of a fault: of 10,000 audits of an honest mechanism one raises an alarm, bound included."""
BOUND = "bound"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """What an audit has found."""

    epsilon: float
    """As claimed, at ``delta``."""
    delta: float
    epsilon_lower_bound: float
    """What an attacker proves, with ``confidence``."""
    confidence: float
    checks: tuple[Check, ...]

    @property
    def flagged_by(self) -> tuple[str, ...]:
        """What speaks against the claim."""
        bound = (BOUND,) if self.epsilon_lower_bound > self.epsilon else ()
        return bound + tuple(check.name for check in self.checks if check.p_value < ALARM)

    @property
    def holds(self) -> bool:
        return not self.flagged_by

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"flagged_by": list(self.flagged_by), "holds": self.holds}


def audit(make: MakeMechanism = real, *, runs: int = RUNS) -> Verdict:
    """Attack the mechanism where it is most vulnerable, and see whether it keeps its claim."""
    plan = audited_plan()
    seen = observe(make, plan, runs=runs)
    return Verdict(
        epsilon=plan.epsilon,
        delta=plan.delta,
        epsilon_lower_bound=_proved(seen, plan),
        confidence=1 - ALARM,
        checks=tuple(checks(seen, plan)),
    )


@cache
def audited_plan() -> PrivacyPlan:
    """A short training, at what the accountant says that it costs."""
    plan = PrivacyPlan(
        dataset="canaries",
        unit="canary",
        units=UNITS,
        epsilon=1.0,
        delta=DELTA,
        clip=0.5,
        batch=int(SAMPLING_RATE * UNITS),
        sampling_rate=SAMPLING_RATE,
        steps=STEPS,
        noise_multiplier=NOISE_MULTIPLIER,
    )
    return plan.model_copy(update={"epsilon": plan.spent(STEPS)})


def _proved(seen: Observations, plan: PrivacyPlan) -> float:
    """By what was released as it is, or less a replay; one half of the runs decides which, and how."""
    attacks = [
        (seen.inside, seen.outside),
        (seen.inside - seen.replay_inside, seen.outside - seen.replay_outside),
    ]
    found = [_proved_by(*attack, plan) for attack in attacks]
    return max(found)[1]


def _proved_by(inside: Floats, outside: Floats, plan: PrivacyPlan) -> tuple[float, float]:
    """ε by the half that chooses the threshold, and by the half that judges it."""
    scores = [log_likelihood_ratio(side, plan).sum(axis=1) for side in (inside, outside)]
    half = len(inside) // 2
    choosing, judging = [side[:half].ravel() for side in scores], [side[half:].ravel() for side in scores]
    chosen = best_threshold(*choosing, delta=plan.delta, alpha=ALARM)
    first, second = (
        epsilon_of_scores(*side, delta=plan.delta, alpha=ALARM, threshold=chosen)
        for side in (choosing, judging)
    )
    return first, second
