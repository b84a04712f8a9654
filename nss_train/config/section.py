"""The base of all sections of the config."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo


class Section(BaseModel):
    """A frozen part of the config. Unknown keys are checked once, for the whole tree."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_default=True,
        protected_namespaces=(),
        # JSON has no such numbers: they would be stored as null, and the job could not be read again.
        allow_inf_nan=False,
    )


SUBMITTED = {"submitted": True}
"""Validation context in which values that no training can use are refused as well.

Older releases accepted such values, and the jobs that they stored must stay readable.
"""


def is_submitted(info: ValidationInfo) -> bool:
    """Tell whether a value was submitted by a person rather than read from a stored job."""
    return bool(info.context and info.context.get("submitted"))
