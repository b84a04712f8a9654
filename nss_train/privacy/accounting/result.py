"""What a private training really did: ``privacy_result.json`` of the train stage."""

from __future__ import annotations

from typing import TYPE_CHECKING

from nss_train.contract import Frozen
from nss_train.errors import BudgetExceeded, Problem

if TYPE_CHECKING:
    from nss_train.privacy.accounting.plan import PrivacyPlan


class AuditBound(Frozen):
    """What an attack on the training could prove."""

    epsilon_lower_bound: float
    """At the δ of the plan."""
    confidence: float
    canaries: int
    guesses: int
    correct: int
    steps: int
    """Those that were seen: of a training that went on from a checkpoint, the ones since."""
    weak_because: str | None = None
    """Why hardly more could be proved, whatever the training gave away."""


class Coupling(Frozen):
    """What the check of invented units found before the first step."""

    change: float
    """The most by which one unit moved another's clipped gradient, in units of C; 0: not by one bit."""
    drawn_at_most: int
    """Units of a step, but for one in a thousand million."""
    units: int
    """Invented ones that one more joined; the change of all grows at most with their number."""
    longest_tokens: int
    """Of the rows that were tried."""
    reason: str

    @property
    def slack(self) -> float:
        """s: the share of C by which one unit may move the sum besides its own gradient."""
        return self.change * self.drawn_at_most


class PrivacyResult(Frozen):
    """Steps that were taken, and what they cost."""

    steps_applied: int
    epsilon_spent: float
    """By-products included."""
    delta: float
    audit: AuditBound | None = None
    loss_reported: bool = False
    slack: float = 0.0
    """s: the noise is σ·C·(1 + s), because a unit moves the sum by C·(1 + s) at most."""
    coupling: Coupling | None = None
    """``None`` in what older releases wrote, which did not check."""


def check_release(plan: PrivacyPlan, result: PrivacyResult) -> None:
    """Raise :class:`BudgetExceeded` when more was spent than the job may spend."""
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
