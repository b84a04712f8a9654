"""The outcome of a private training: ``privacy_result.json`` of the train stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nss_train.contract import Frozen
from nss_train.errors import BudgetExceeded, Problem

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan


class AuditBound(Frozen):
    """The result of an attack on the training."""

    epsilon_lower_bound: float
    """Lower bound of ε at the plan's δ."""
    confidence: float
    canaries: int
    guesses: int
    correct: int
    steps: int
    """Steps that the attack saw; in a training resumed from a checkpoint, the ones since."""
    weak_because: str | None = None
    """Why the bound could hardly be higher, whatever the training leaked."""


class Coupling(Frozen):
    """The result of the check on invented units before the first step."""

    change: float
    """Most by which one unit moved another's clipped gradient, in units of C; 0: not by one bit."""
    drawn_at_most: int
    """Most units of a step, except with a probability of 1e-9."""
    units: int
    """Invented units that one more unit joined; the total change grows at most with their number."""
    longest_tokens: int
    """Tokens of the longest row that was tried."""
    reason: str

    @property
    def slack(self) -> float:
        """Return s: the share of C by which one unit may move the sum besides its own gradient."""
        return self.change * self.drawn_at_most


class PrivacyResult(Frozen):
    """The steps that were taken, and their cost."""

    steps_applied: int
    epsilon_spent: float
    """ε spent, by-products included."""
    delta: float
    audit: AuditBound | None = None
    loss_reported: bool = False
    slack: float = 0.0
    """s: the noise is σ·C·(1 + s), because a unit moves the sum by C·(1 + s) at most."""
    coupling: Coupling | None = None
    """Result of the coupling check; ``None`` in results of older releases, which did not check."""


def check_release(plan: PrivacyPlan, result: PrivacyResult) -> None:
    """Raise :class:`BudgetExceeded` if more was spent than the job may spend."""
    pairs = (
        ("privacy.epsilon", result.epsilon_spent, plan.epsilon),
        ("privacy.delta", result.delta, plan.delta),
    )
    remedy = (
        "{spent:.6g} was spent, of {allowed:.6g}; the adapter is not released, and what was spent stays so"
    )
    problems = [
        Problem(field=field, value=spent, remedy=remedy.format(spent=spent, allowed=allowed))
        for field, spent, allowed in pairs
        if spent > allowed
    ]
    if problems:
        raise BudgetExceeded("The training spent more privacy than the job has.", problems)
