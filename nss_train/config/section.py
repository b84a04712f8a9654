"""What all sections of the config have in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict, ValidationInfo


class Section(BaseModel):
    """A frozen part of the config. Unknown keys are dealt with once, for the whole tree."""

    model_config = ConfigDict(
        frozen=True,
        extra="ignore",
        validate_default=True,
        protected_namespaces=(),
        # JSON has no such numbers: they would be stored as null, and the job could not be read again.
        allow_inf_nan=False,
    )


SUBMITTED = {"submitted": True}
"""Context of a validation that also refuses what no training can follow.

Older releases took such values, and the jobs that they stored with them must stay readable.
"""


def is_submitted(info: ValidationInfo) -> bool:
    """Whether a value comes from a person, and not from a job that is stored."""
    return bool(info.context and info.context.get("submitted"))
