"""The error of a training whose numbers have become infinite or no numbers at all."""

from __future__ import annotations

import math

from nss_train.errors import ParameterError, Problem


def check_loss(loss: float, *, learning_rate: float) -> None:
    """Raise :class:`ParameterError` for a loss that is no finite number: no later step can mend it."""
    if not math.isfinite(loss):
        raise diverged("the loss is no number", learning_rate)


def diverged(what: str, learning_rate: float | str) -> ParameterError:
    """Return the error, with the remedy."""
    problem = Problem(field="training.learning_rate", value=learning_rate, remedy="use a smaller one")
    return ParameterError(f"Training diverged: {what}.", [problem])
