"""What may be told of a private training while it runs: nothing that was not paid for."""

from __future__ import annotations

from typing import Any

from nss_train.contract import Report
from nss_train.training.callbacks import Progress


class ReportPrivateSteps(Progress):
    """Reports each step with ε and the speed that is expected; the drawn number of units is a secret."""

    def __init__(self, report: Report, *, total_units: int) -> None:
        super().__init__(report)
        self._total_units = total_units

    def describe(self, logs: dict[str, float], *, share_per_s: float) -> tuple[str, dict[str, Any]] | None:
        del share_per_s  # it follows from the numbers that were drawn
        if "epsilon" not in logs:
            return None
        paid_for = {name: round(value, 6) for name, value in logs.items() if name != "epoch"}
        return f"ε ≤ {logs['epsilon']:.3f}", paid_for
