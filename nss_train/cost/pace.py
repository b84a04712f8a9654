"""How fast a device trains a model, and what that makes of a training's work. Light: no torch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from nss_train.contract import Frozen
from nss_train.cost.work import Work
from nss_train.model.footprint import Shape

FORWARD_SHARE = 0.5
"""Of a pass and its way back, which computes no gradient of the frozen weights: 2 of 4 FLOPs for each
parameter and token (Kaplan et al. 2020, arXiv 2001.08361, §2.1; there the way back takes twice the pass)."""


class Pace(Frozen):
    """Seconds of the parts of a training."""

    before_s: float
    """What comes before the first step: a private training tries itself."""
    step_s: float
    """Of a step, without its passes."""
    token_s: float
    """Of a token's way through the model and back."""
    width: int
    """Tokens of the rows that this was measured on."""

    def extended(self, more: Pace, times: float) -> Pace:
        """The pace of this one's layers and ``times`` as many more as the other one has."""

        def line(few: float, much: float) -> float:
            return max(much, few + times * (much - few))

        return Pace(
            before_s=line(self.before_s, more.before_s),
            step_s=line(self.step_s, more.step_s),
            token_s=line(self.token_s, more.token_s),
            width=self.width,
        )

    def seconds(self, work: Work, model: Mapping[str, Any]) -> float:
        """Of a whole training; ``model`` is the base model's ``config.json``."""
        tokens = work.steps * work.rows_per_step * work.row_tokens + FORWARD_SHARE * work.evaluated_tokens
        longer = (1 + attention(work.row_tokens, model)) / (1 + attention(self.width, model))
        return self.before_s + work.steps * self.step_s + tokens * self.token_s * longer


def attention(width: float, model: Mapping[str, Any]) -> float:
    """FLOPs of attention as a share of those of the weights: they alone grow with the square of the width.

    A token meets half of a row, twice, in each layer (Kaplan et al. 2020, table 1: 2·n_layer·n_ctx·d_attn).
    """
    shape = Shape.of(model)
    if shape is None:
        return 0.0
    weights = shape.layer_parameters + shape.vocabulary * shape.hidden
    return shape.layers * shape.hidden * width / weights
