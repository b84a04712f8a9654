"""The base of all sections of the config."""

from __future__ import annotations

import typing
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationInfo, field_validator


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

    @field_validator("*", mode="before")
    @classmethod
    def _boolean_is_no_number(cls, value: object, info: ValidationInfo) -> Any:
        """Refuse ``yes`` where a number belongs; pydantic would take it for 1."""
        if isinstance(value, bool) and is_submitted(info):
            kinds = set(_kinds(cls.model_fields[str(info.field_name)].annotation))
            if bool not in kinds and kinds & {int, float}:
                raise ValueError(f"{str(value).lower()} is no number")
        return value


SUBMITTED = {"submitted": True}
"""Validation context in which values that no training can use are refused as well.

Older releases accepted such values, and the jobs that they stored must stay readable.
"""


def is_submitted(info: ValidationInfo) -> bool:
    """Tell whether a value was submitted by a person rather than read from a stored job."""
    return bool(info.context and info.context.get("submitted"))


def _kinds(annotation: object) -> Iterator[Any]:
    """Yield the types that an annotation names, at any depth."""
    yield annotation
    for inner in typing.get_args(annotation):
        yield from _kinds(inner)
