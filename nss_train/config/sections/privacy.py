"""The ``privacy`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nss_train.config.bounds import Within
from nss_train.config.sections.section import Section

_EPSILON = Within(0, 1_000, "above it the guarantee says nothing, and only the accountant has work")
_CLIP = Within(0, 1e6, "gradients of single records have norms of about 1")
MOST_DELTA = 1e-5
"""Largest δ that ``auto`` chooses."""


class DifferentialPrivacyParameters(Section):
    """The requested privacy guarantee."""

    dp_enabled: bool = False
    epsilon: Annotated[float, Field(gt=0), _EPSILON] = 8.0
    delta: Literal["auto", "nss"] | Annotated[float, Field(ge=0, lt=1)] = "auto"
    """``auto`` is min(1e-5, 1/(10 n)) for n units; ``nss`` is NSS's rule, 1/n^1.2."""
    per_sample_max_grad_norm: Annotated[float, Field(gt=0), _CLIP] = 1.0
