"""The ``privacy`` section."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from nss_train.config.section import Section


class DifferentialPrivacyParameters(Section):
    """The guarantee that is asked for."""

    dp_enabled: bool = False
    epsilon: Annotated[float, Field(gt=0)] = 8.0
    delta: Literal["auto"] | Annotated[float, Field(ge=0, lt=1)] = "auto"
    per_sample_max_grad_norm: Annotated[float, Field(gt=0)] = 1.0
