"""The largest values that a submitted config may have, and why: large values cost time or memory.

NSS sets few of these bounds. Each is far above any value used in training; a job that an older release stored
is read without them.
"""

from __future__ import annotations

from collections.abc import Sized
from dataclasses import dataclass
from typing import Annotated, Any

from pydantic import Field, GetCoreSchemaHandler, ValidationInfo
from pydantic_core import CoreSchema, core_schema

from nss_train import documents
from nss_train.config.sections.section import is_submitted


@dataclass(frozen=True, slots=True)
class Within:
    """The bounds of a number, both included, and the reason for them."""

    low: float
    high: float
    why: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def _check(self, given: Any, info: ValidationInfo) -> Any:
        if is_submitted(info) and not self.low <= given <= self.high:
            raise ValueError(f"must be {_said(self.low)} to {_said(self.high)}: {self.why}")
        return given


@dataclass(frozen=True, slots=True)
class AtMost:
    """The largest number of characters of a text or entries of a list, and the reason for it."""

    length: int
    why: str

    def __get_pydantic_core_schema__(self, source: object, handler: GetCoreSchemaHandler) -> CoreSchema:
        return core_schema.with_info_after_validator_function(self._check, handler(source))

    def _check(self, given: Sized, info: ValidationInfo) -> Sized:
        if is_submitted(info) and len(given) > self.length:
            raise ValueError(f"has {len(given):,} and may have {self.length:,}: {self.why}")
        return given


def _said(number: float) -> str:
    return f"{number:,}" if isinstance(number, int) else f"{number:g}"


MOST_COLUMNS = 4_000
ROWS = 10**8
"""Twice the number of rows that a worker accepts unless its operator allows more."""
STEPS = 10**6
"""Largest number of optimizer steps: a week at two steps a second."""

Name = Annotated[str, AtMost(1_000, "it names a column")]
Names = Annotated[list[Name], AtMost(MOST_COLUMNS, "as many as a table may have columns")]
Word = Annotated[str, AtMost(200, "it is one of a few words")]
Path = Annotated[str, AtMost(4_096, "it is a path, or a model's name")]
Integer64 = Annotated[int, Within(-(2**63), 2**63 - 1, "tables hold whole numbers of 64 bits")]
Rows = Annotated[int, Within(0, ROWS, "it is a number of records")]
Share = Annotated[float, Field(ge=0, le=1)]
Number = Annotated[float, Within(-1e100, 1e100, "noise is drawn over powers of two, which end")]


def scalar(given: object, info: ValidationInfo) -> Any:
    """Return the value if a cell can have it: a text, a number, true, false or null."""
    if is_submitted(info):
        if isinstance(given, dict | list | tuple):
            raise ValueError("must be texts, numbers, true, false or null")
        if why := next(documents.faults(given, text_chars=1_000), None):
            raise ValueError(why)
    return given
