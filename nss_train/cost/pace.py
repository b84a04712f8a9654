"""The speed at which a device trains a model, and the time that a training's work takes. No torch."""

from __future__ import annotations

from collections.abc import Mapping

from nss_train.contract import Frozen
from nss_train.cost.work import Work
from nss_train.model.footprint import Shape

FORWARD_SHARE = 0.5
"""Share of the forward pass in both passes; the backward pass computes no gradient of the frozen weights:
2 of 4 FLOPs per parameter and token (Kaplan et al. 2020, arXiv 2001.08361, §2.1; there the backward pass
takes twice the forward pass)."""


class Pace(Frozen):
    """The seconds that each part of a training takes."""

    before_s: float
    """Time before the first step, in which a private training runs a trial."""
    step_s: float
    """Time of a step, without its passes."""
    token_s: float
    """Time of a token's forward and backward pass."""
    width: int
    """Tokens of the rows in this measurement."""

    def extended(self, more: Pace, times: float) -> Pace:
        """Extrapolate linearly: add ``times`` the difference between the other pace and this one."""

        def line(few: float, much: float) -> float:
            return max(much, few + times * (much - few))

        return Pace(
            before_s=line(self.before_s, more.before_s),
            step_s=line(self.step_s, more.step_s),
            token_s=line(self.token_s, more.token_s),
            width=self.width,
        )

    def seconds(self, work: Work, model: Mapping[str, object]) -> float:
        """Return the seconds of a whole training; ``model`` is the base model's ``config.json``."""
        tokens = work.steps * work.rows_per_step * work.row_tokens + FORWARD_SHARE * work.evaluated_tokens
        longer = (1 + attention(work.row_tokens, model)) / (1 + attention(self.width, model))
        return self.before_s + work.steps * self.step_s + tokens * self.token_s * longer


def attention(width: float, model: Mapping[str, object]) -> float:
    """Return the FLOPs of attention as a share of the weights' FLOPs; it grows with the width.

    A token attends to half of a row on average, twice per layer (Kaplan et al. 2020, table 1:
    2·n_layer·n_ctx·d_attn).
    """
    shape = Shape.of(model)
    if shape is None:
        return 0.0
    weights = shape.layer_parameters + shape.vocabulary * shape.hidden
    return shape.layers * shape.hidden * width / weights
