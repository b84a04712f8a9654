"""The size of a probe, and its clock: the same for plain and private trainings."""

from __future__ import annotations

import time

import torch

from nss_train.cost.work import Work

STEPS, PASSES = 4, 2
"""Steps and passes of a probe. The first step is not timed: libraries choose their kernels in it."""
ENOUGH_S = 2.0
"""Seconds of timed steps after which a probe ends."""
MOST_TOKENS = 256
"""Tokens of a micro-batch in the probe: a token of a longer one takes as long, except for attention."""
USUAL_TOKEN = 64
"""Token id of the invented rows; its value makes no difference."""


def tried_width(work: Work) -> int:
    """Return the tokens of a row in the probe."""
    return max(2, min(MOST_TOKENS, round(work.row_tokens)))


def now() -> float:
    """Return the time once the device has finished its pending work."""
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.monotonic()
