"""The ``data`` section."""

from __future__ import annotations

import secrets
from typing import Annotated, Any, Literal

from pydantic import Field, ValidationInfo, field_validator, model_validator

from nss_train.config.bounds import ROWS, Name, Within
from nss_train.config.sections.section import Section, is_submitted

_SEQUENCES = Within(-(2**63), 10**6, "the context of no model holds more records")
"""A number below 0 is refused by a validator of its own."""
_HELD_OUT = Within(0, ROWS, "it is a share, or a number of records")
_SEED = Within(0, 2**32 - 1, "the generators of numpy and scikit-learn take no other seeds")


class DataParameters(Section):
    """The rows and columns that are trained on, and how they are put together."""

    group_training_examples_by: Name | None = None
    order_training_examples_by: Name | None = None
    max_sequences_per_example: Literal["auto"] | Annotated[int, _SEQUENCES] | None = "auto"
    """``None`` and, as in NSS, 0 mean no limit."""
    holdout: Annotated[float, Field(ge=0), _HELD_OUT] = 0.05
    max_holdout: Annotated[int, Field(ge=0), _HELD_OUT] = 2000
    random_state: Annotated[int, _SEED] = 0
    """Seed of the holdout split. It is drawn once when absent, and is part of the config from then on."""

    @field_validator("random_state", mode="before")
    @classmethod
    def _draw(cls, given: object) -> Any:
        return secrets.randbelow(1_000_001) if given is None else given

    @model_validator(mode="before")
    @classmethod
    def _draw_when_absent(cls, given: object) -> Any:
        return {"random_state": None} | dict(given) if isinstance(given, dict) else given

    @field_validator("max_sequences_per_example")
    @classmethod
    def _a_number_of_sequences(cls, given: object, info: ValidationInfo) -> Any:
        if is_submitted(info) and isinstance(given, int) and given < 0:
            raise ValueError("must be 1 or more, or null for as many as fit")
        return given

    @field_validator("order_training_examples_by")
    @classmethod
    def _order_needs_group(cls, given: str | None, info: ValidationInfo) -> str | None:
        if given is not None and info.data.get("group_training_examples_by") is None:
            raise ValueError("order_training_examples_by requires group_training_examples_by")
        return given
