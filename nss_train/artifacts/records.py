"""The parsing of one completion: its valid rows, and the reasons why the others are invalid."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jsonschema import exceptions
from jsonschema.validators import Draft202012Validator, validator_for

Row = dict[str, Any]
Validator = Any
"""A jsonschema validator; the package has no types."""

_CANDIDATE = re.compile(r"{.+?}(?=\n|$)")
"""Pattern of a record, which is NSS's: it ends at the first closing brace that ends a line; an
unfinished line, and text before or after the braces, are ignored rather than invalid."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Invalid:
    """The reason why a candidate is not a row."""

    text: str
    message: str
    reason: str
    """Class of the fault: ``Invalid JSON``, ``Float Conversion``, … or the schema keyword that failed."""
    column: str = ""
    """Column whose value is wrong; empty if the record as a whole is."""

    @property
    def told(self) -> str:
        """Return the class with the column, as people see it."""
        return f"{self.reason} in column {self.column}" if self.column else self.reason


@dataclass(frozen=True, kw_only=True, slots=True)
class Records:
    """The valid and invalid records of one completion."""

    valid: tuple[Row, ...]
    invalid: tuple[Invalid, ...]


class _Rejected(Exception):
    def __init__(self, message: str, reason: str, *, column: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.column = column


def schema_validator(schema: Mapping[str, object]) -> Validator:
    """Return a row validator for a dataset schema, in the dialect that ``jsonschema.validate`` uses."""
    chosen = validator_for(schema, default=Draft202012Validator)
    chosen.check_schema(schema)
    return chosen(schema)


def relax_numeric_bounds(schema: Mapping[str, Any]) -> dict[str, Any]:
    """Return the schema without ``minimum`` and ``maximum`` of columns that are only ``number`` (§4).

    This implements ``generation.validation.enforce_numeric_range: false``.
    """
    properties = {name: _relaxed(column) for name, column in schema["properties"].items()}
    return {**schema, "properties": properties}


def parse_completion(text: str, validator: Validator) -> Records:
    """Return the rows of one completion, by the rules by which NSS accepts rows."""
    clean = text.encode("utf-8", "ignore").decode("utf-8")
    valid: list[Row] = []
    invalid: list[Invalid] = []
    for candidate in _CANDIDATE.findall(clean):
        try:
            valid.append(_row(candidate, validator))
        except _Rejected as rejected:
            found = {"message": rejected.message, "reason": rejected.reason, "column": rejected.column}
            invalid.append(Invalid(text=candidate, **found))
    return Records(valid=tuple(valid), invalid=tuple(invalid))


def _row(candidate: str, validator: Validator) -> Row:
    """Return the candidate as a row; the order of the checks decides the class of an invalid one."""
    row = _decoded(candidate)
    if not isinstance(row, dict):
        raise _Rejected("Expected a JSON object", "Invalid JSON type")
    if not _is_finite(row):
        raise _Rejected("Object contains a value that is not valid JSON", "Invalid JSON value")
    error = exceptions.best_match(validator.iter_errors(row))
    if error is not None:
        column = ".".join(map(str, error.absolute_path))
        raise _Rejected(error.message, str(error.validator), column=column)
    _check_floats(row)
    return row


def _decoded(candidate: str) -> Any:
    try:
        return json.loads(candidate)
    except json.JSONDecodeError as error:
        raise _Rejected(f"Invalid JSON: {error.msg}", "Invalid JSON") from error
    except (ValueError, RecursionError) as error:
        # Python refuses numbers of more than 4,300 digits and very deep nesting.
        raise _Rejected(f"Invalid JSON: {error}", "Invalid JSON") from error


def _is_finite(value: object) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    if isinstance(value, dict):
        return all(_is_finite(inner) for inner in value.values())
    return all(_is_finite(inner) for inner in value) if isinstance(value, list) else True


def _check_floats(row: Row) -> None:
    for name, value in row.items():
        if isinstance(value, int):
            try:
                float(value)
            except OverflowError as error:
                message = f"Value {value} in field '{name}' is too large to convert to float64"
                raise _Rejected(message, "Float Conversion", column=name) from error


def _relaxed(column: Mapping[str, object]) -> dict[str, Any]:
    if column.get("type") != "number":
        return dict(column)
    return {key: value for key, value in column.items() if key not in {"minimum", "maximum"}}
