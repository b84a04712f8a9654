"""The ``guarantee`` section: how differential privacy is enforced. NSS has no such section."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nss_train.config.bounds import MOST_COLUMNS, ROWS, AtMost, Integer64, Name, Number, Within, Word, scalar
from nss_train.config.sections.section import Section
from nss_train.text.names import DATASET, declared

_CATEGORIES = AtMost(10_000, "a schema with more is no help to generation")
_COLUMNS = AtMost(MOST_COLUMNS, "as many as a table may have")
_OF_A_UNIT = Within(1, 10**6, "each step clips a whole unit at once")
_UNITS = Within(1, ROWS, "it is a number of records, or of who they belong to")
_CANARIES = Within(0, 10**5, "each of them trains with the rest; a thousand already give a sharp bound")


class SchemaSource(StrEnum):
    """The source of the bounds and categories in the published schema."""

    PRIVATE = "private"
    """Noisy bounds and categories, paid for with a share of ε."""
    DECLARED = "declared"
    """Bounds and categories that the config declares as public; the table is not consulted."""
    RAW = "raw"
    """The table's own bounds and categories, outside the guarantee."""


class ColumnType(StrEnum):
    """The type of a column's cells; a cell that does not fit becomes null, independently of the others."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"
    DATETIME = "datetime"
    JSON = "json"
    """Lists and objects, kept as they are written."""
    ANY = "any"
    """Each cell is typed separately: a JSON number, true or false, otherwise text."""


class Clock(StrEnum):
    """The detail that the timing of a private training may reveal to an observer of its events."""

    COARSE = "coarse"
    """Few events, far apart: they reveal the total time, but not single steps."""
    PACED = "paced"
    """Few events, as with ``COARSE``, and a fixed time slot for each step."""


def _finite(given: object) -> Any:
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError("must be a finite number")
    return given


class PublicColumn(Section):
    """The public facts about a column, which do not depend on the table."""

    type: ColumnType | None = None
    """``None``: the type that the file's format declares (Parquet), otherwise ``any``."""
    format: Word | None = None
    """Format of a datetime column, as in strptime; without it the text is kept as it is."""
    minimum: Number | None = None
    maximum: Number | None = None
    categories: (
        Annotated[tuple[Annotated[Any, AfterValidator(_finite), AfterValidator(scalar)], ...], _CATEGORIES]
        | None
    ) = None
    other: Name | Integer64 | Number | bool | None = None
    """Replacement for a value outside the categories; null if it is not set."""
    nullable: bool = True
    """If false, a record without a value has no effect."""


class GuaranteeParameters(Section):
    """The enforcement of the ``privacy`` section's guarantee; without effect if that section is off."""

    strict: bool = True
    """Whether everything that leaves the job must be covered by the guarantee."""
    dataset: Annotated[str, Field(pattern=DATASET), AfterValidator(declared)] | None = None
    """Dataset whose budget the job is charged to; if absent, a random name that is used once."""
    unit_column: Name | None = None
    """Column whose values define the units of privacy; without it each row, or each group, is a unit."""
    max_records_per_unit: Annotated[int, Field(ge=1), _OF_A_UNIT] = 64
    """Most rows of a unit that are trained on: the first ones."""
    max_tokens_per_unit: Annotated[int, Field(ge=1), _OF_A_UNIT] | None = None
    """Most tokens of a unit that are trained on, first records first; ``None``: as the context allows."""
    units: Literal["rows", "noisy"] | Annotated[int, Field(ge=1), _UNITS] | None = None
    """Source of the number of units: the file's rows, a count with noise, or a declared number.

    ``None``: the file's rows if each row is a unit, otherwise a count with noise."""
    count_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of ε that is spent on a count with noise."""
    multiline_cells: bool = False
    """Whether a cell of a CSV file may hold line breaks; if not, each line is a record of its own."""
    clock: Clock = Clock.COARSE
    schema_source: SchemaSource = SchemaSource.PRIVATE
    schema_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of ε and δ that is spent on a private schema."""
    columns: Annotated[dict[Name, PublicColumn], _COLUMNS] = Field(default_factory=dict)
    """Public facts by column; they cost no budget, whatever ``schema_source`` is."""
    report_loss: bool = False
    """Whether each step reports its loss, with noise that the accountant counts."""
    audit_canaries: Annotated[int, Field(ge=0), _CANARIES] = 0
    """Number of invented units that the training is audited with; the model card shows the bound."""
