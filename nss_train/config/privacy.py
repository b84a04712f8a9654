"""The ``privacy`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nss_train.config.section import Section

MOST_DELTA = 1e-5
"""Of what ``auto`` chooses."""


class DifferentialPrivacyParameters(Section):
    """The guarantee that is asked for."""

    dp_enabled: bool = False
    epsilon: Annotated[float, Field(gt=0)] = 8.0
    delta: Literal["auto", "nss"] | Annotated[float, Field(ge=0, lt=1)] = "auto"
    """``auto`` is min(1e-5, 1/(10 n)) for n units; ``nss`` is NSS's rule, 1/n^1.2."""
    per_sample_max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
