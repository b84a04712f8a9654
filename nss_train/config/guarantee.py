"""The ``guarantee`` section: how differential privacy is kept. NSS does not know it."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field

from nss_train.config.bounds import MOST_COLUMNS, ROWS, AtMost, Integer64, Name, Number, Within, Word, scalar
from nss_train.config.section import Section
from nss_train.names import DATASET, declared

_CATEGORIES = AtMost(10_000, "a schema with more is no help to generation")
_COLUMNS = AtMost(MOST_COLUMNS, "as many as a table may have")
_OF_A_UNIT = Within(1, 10**6, "each step clips a whole unit at once")
_UNITS = Within(1, ROWS, "it is a number of records, or of who they belong to")
_CANARIES = Within(0, 10**5, "each of them trains with the rest; a thousand already give a sharp bound")


class SchemaSource(StrEnum):
    """Where the bounds and categories of the published schema come from."""

    PRIVATE = "private"
    """Noisy bounds and categories, paid for with a share of ε."""
    DECLARED = "declared"
    """What the config declares as public; nothing is looked up in the table."""
    RAW = "raw"
    """The table's own, outside the guarantee."""


class ColumnType(StrEnum):
    """What the cells of a column are; a cell that does not fit becomes null, whatever the others are."""

    INTEGER = "integer"
    NUMBER = "number"
    BOOLEAN = "boolean"
    STRING = "string"
    DATETIME = "datetime"
    JSON = "json"
    """Lists and objects, as they are written."""
    ANY = "any"
    """Each cell decides for itself: a JSON number, true, false, else text."""


class Clock(StrEnum):
    """What the time of a private training may tell to who watches its events."""

    COARSE = "coarse"
    """Few marks, far apart: single steps are not seen, the whole time is."""
    PACED = "paced"
    """Each step takes a fixed slot as well."""


def _finite(given: Any) -> Any:
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError("must be a finite number")
    return given


class PublicColumn(Section):
    """What anybody may know of a column, whatever the table holds."""

    type: ColumnType | None = None
    """``None``: what the file's format declares (Parquet), else ``any``."""
    format: Word | None = None
    """Of a datetime column, as in strptime; without it the text stands as it is."""
    minimum: Number | None = None
    maximum: Number | None = None
    categories: (
        Annotated[tuple[Annotated[Any, AfterValidator(_finite), AfterValidator(scalar)], ...], _CATEGORIES]
        | None
    ) = None
    other: Name | Integer64 | Number | bool | None = None
    """What a value outside the categories becomes; null without it."""
    nullable: bool = True
    """Where false, a record without a value counts for nothing."""


class GuaranteeParameters(Section):
    """How the guarantee of the ``privacy`` section is kept; without effect where that is off."""

    strict: bool = True
    """Whether nothing leaves the job that the guarantee does not cover."""
    dataset: Annotated[str, Field(pattern=DATASET), AfterValidator(declared)] | None = None
    """Whose budget the job is charged to; a random name that is used once when it is not named."""
    unit_column: Name | None = None
    """The rows that share a value of this column are one unit of privacy; a row or a group without it."""
    max_records_per_unit: Annotated[int, Field(ge=1), _OF_A_UNIT] = 64
    """Of a unit with more rows than this only the first are trained on."""
    max_tokens_per_unit: Annotated[int, Field(ge=1), _OF_A_UNIT] | None = None
    """Tokens that a unit trains on at most, its first records first; ``None``: as the context allows."""
    units: Literal["rows", "noisy"] | Annotated[int, Field(ge=1), _UNITS] | None = None
    """How the number of units becomes known: the file's rows, counted with noise, or declared.

    ``None``: rows where each row is a unit, else with noise."""
    count_share: Annotated[float, Field(gt=0, lt=1)] = 0.01
    """Share of ε that a count with noise is paid with."""
    multiline_cells: bool = False
    """Whether a cell of a CSV file may hold line breaks; else each line is a record of its own."""
    clock: Clock = Clock.COARSE
    schema_source: SchemaSource = SchemaSource.PRIVATE
    schema_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of ε and δ that a private schema is paid with."""
    columns: Annotated[dict[Name, PublicColumn], _COLUMNS] = Field(default_factory=dict)
    """Public knowledge by column; it costs nothing, whatever ``schema_source`` is."""
    report_loss: bool = False
    """Whether each step reports its loss, with noise that the accountant counts."""
    audit_canaries: Annotated[int, Field(ge=0), _CANARIES] = 0
    """Invented units that the training is audited with; the model card shows the bound."""
