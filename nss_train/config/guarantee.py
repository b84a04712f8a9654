"""The ``guarantee`` section: how differential privacy is kept. NSS does not know it."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from nss_train.config.section import Section


class SchemaSource(StrEnum):
    """Where the bounds and categories of the published schema come from."""

    PRIVATE = "private"
    """Noisy bounds and categories, paid for with a share of ε."""
    DECLARED = "declared"
    """What the config declares as public; nothing is looked up in the table."""
    RAW = "raw"
    """The table's own, outside the guarantee."""


def _finite(given: Any) -> Any:
    if isinstance(given, float) and not math.isfinite(given):
        raise ValueError("must be a finite number")
    return given


class PublicColumn(Section):
    """What anybody may know of a column, whatever the table holds."""

    minimum: float | None = None
    maximum: float | None = None
    categories: tuple[Annotated[Any, AfterValidator(_finite)], ...] | None = None
    nullable: bool = True


class GuaranteeParameters(Section):
    """How the guarantee of the ``privacy`` section is kept; without effect where that is off."""

    strict: bool = True
    """Whether nothing leaves the job that the guarantee does not cover."""
    dataset: Annotated[str, Field(pattern=r"^[a-z0-9][a-z0-9-]{0,62}$")] | None = None
    """Whose budget the job is charged to; the table's own digest when it is not named."""
    unit_column: str | None = None
    """The rows that share a value of this column are one unit of privacy; a row or a group without it."""
    max_records_per_unit: Annotated[int, Field(ge=1)] = 64
    """Of a unit with more rows than this only the first are trained on."""
    schema_source: SchemaSource = SchemaSource.PRIVATE
    schema_share: Annotated[float, Field(gt=0, lt=1)] = 0.1
    """Share of ε and δ that a private schema is paid with."""
    columns: dict[str, PublicColumn] = Field(default_factory=dict)
    """Public knowledge by column; it costs nothing, whatever ``schema_source`` is."""
    report_loss: bool = False
    """Whether each step reports its loss, with noise that the accountant counts."""
    audit_canaries: Annotated[int, Field(ge=0)] = 0
    """Invented units that the training is audited with; the model card shows the bound."""
