"""The result of one training."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from nss_train.training.reports.callbacks import INCOMPLETE


@dataclass(frozen=True, kw_only=True, slots=True)
class Fitted:
    """The result of a training; the adapter is in the model that was passed in."""

    log_history: list[dict[str, Any]]
    steps: int
    reason: str | None
    """Why it ended early; ``None`` when it is complete."""
    seconds: float
    """Seconds in this process, without earlier processes of the same training."""
    ranks: int
    figures: dict[str, Any]
    """Figures to show that are the same for the same job."""
    speed: dict[str, float]
    weights: dict[str, torch.Tensor] | None = None
    """Weights of the whole adapter, where each rank's model holds a part of it."""
    share_held: float = 1.0
    """Share of the model's values that this rank holds."""
    privacy: dict[str, Any] | None = None
    """Result of a private training (``privacy_result.json``)."""

    @property
    def training_complete(self) -> bool:
        return self.reason is None


def incomplete_reason(log_history: Sequence[Mapping[str, Any]]) -> str | None:
    """Return why a training ended early; ``None`` when it took all its steps."""
    return next((str(entry[INCOMPLETE]) for entry in log_history if INCOMPLETE in entry), None)
