"""Reading under privacy, and what a column became."""

from __future__ import annotations

from typing import Any

from nss_train.config.sections.guarantee import GuaranteeParameters
from nss_train.data.private.table import PrivateTable


def guarantee(columns: dict[str, Any] | None = None, **more: Any) -> GuaranteeParameters:
    return GuaranteeParameters.model_validate({"columns": columns or {}, **more})


def texts(table: PrivateTable, name: str) -> list[str]:
    column = next(column for column in table.columns if column.name == name)
    return [column.texts[code] for code in column.codes]
