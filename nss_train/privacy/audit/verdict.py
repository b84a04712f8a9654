"""The audit of the private step: its claim, what an attacker proves, and whether they agree."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cache
from typing import Any

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.checks import Check, checks
from nss_train.privacy.audit.observations import UNITS, MakeMechanism, Observations, observe, real
from nss_train.privacy.evidence.bounds import best_threshold, epsilon_of_scores
from nss_train.privacy.evidence.likelihood import Floats, log_likelihood_ratio

STEPS, SAMPLING_RATE, NOISE_MULTIPLIER, DELTA = 8, 0.25, 1.59, 1e-2
"""Settings that cost ε = 1. At this δ, 100,000 canaries prove most of it; 1e-5 would take many millions."""
RUNS = 1000
CHECKS = 8
ALARM = 1e-4 / (CHECKS + 1)
"""p-value of a fault: one in 10,000 audits of an honest mechanism raises an alarm, bound included."""
BOUND = "bound"


@dataclass(frozen=True, kw_only=True, slots=True)
class Verdict:
    """The result of an audit."""

    epsilon: float
    """Claimed ε, at ``delta``."""
    delta: float
    epsilon_lower_bound: float
    """ε that an attacker proves, with ``confidence``."""
    confidence: float
    checks: tuple[Check, ...]

    @property
    def flagged_by(self) -> tuple[str, ...]:
        """Return the names of the bound and checks that contradict the claim."""
        bound = (BOUND,) if self.epsilon_lower_bound > self.epsilon else ()
        return bound + tuple(check.name for check in self.checks if check.p_value < ALARM)

    @property
    def holds(self) -> bool:
        return not self.flagged_by

    def as_json(self) -> dict[str, Any]:
        return asdict(self) | {"flagged_by": list(self.flagged_by), "holds": self.holds}


def audit(make: MakeMechanism = real, *, runs: int = RUNS) -> Verdict:
    """Attack the mechanism where it is most vulnerable; return whether its claim holds, and the evidence."""
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
    """Return the plan of a short training, with the ε that the accountant computes."""
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
    """Return the ε proved by the releases, or by them less a replay; half of the runs chooses the attack."""
    attacks = [
        (seen.inside, seen.outside),
        (seen.inside - seen.replay_inside, seen.outside - seen.replay_outside),
    ]
    found = [_proved_by(*attack, plan) for attack in attacks]
    return max(found)[1]


def _proved_by(inside: Floats, outside: Floats, plan: PrivacyPlan) -> tuple[float, float]:
    """Return ε by the half of the runs that chooses the threshold, and by the half that judges it."""
    scores = [log_likelihood_ratio(side, plan).sum(axis=1) for side in (inside, outside)]
    half = len(inside) // 2
    choosing, judging = [side[:half].ravel() for side in scores], [side[half:].ravel() for side in scores]
    chosen = best_threshold(*choosing, delta=plan.delta, alpha=ALARM)
    first, second = (
        epsilon_of_scores(*side, delta=plan.delta, alpha=ALARM, threshold=chosen)
        for side in (choosing, judging)
    )
    return first, second
