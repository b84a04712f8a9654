"""Small tables with neighbours; each known mistake shows in at least one pair."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.privacy.audit.neighbours.edits import Edit, Odd, delete, insert, null_out, replace
from nss_train.privacy.audit.neighbours.replay import Case
from nss_train.privacy.audit.neighbours.tables import Csv, JsonLines, TableFile

ROWS = 24
UNIT = "person"
ODD = (
    "other type",
    "gap",
    "stray quote",
    "open quote",
    "surplus field",
    "new key",
    "no JSON",
    "long text",
    "escaped surrogate",
    "all null",
)
"""Kinds of odd records that replace others; each format uses the ones it can express."""


def corpus(model: Path) -> Iterator[Case]:
    """Yield tables of records, of units of several records, and of groups, in two formats."""
    tables: tuple[TableFile, ...] = (_csv(), _json_lines())
    for table in tables:
        for unit, held_out in (("record", 0.5), ("column", 0.5), ("group", 0.5), ("record", 0)):
            unit_column = None if unit == "record" else UNIT
            request = _request(model, unit, held_out)
            yield Case(table=table, request=request, edits=tuple(_edits(table, unit_column)))


def _csv() -> Csv:
    # Numbers and texts alternate in length, so that the longest records are not the first ones.
    lines = [f"p{row % 9},{20 + row},{'x' * (row * 7 % 11)}" for row in range(ROWS)]
    return Csv(header=b"person,age,note", records=tuple(line.encode() for line in lines))


def _json_lines() -> JsonLines:
    records = [
        {"person": f"p{row % 9}", "age": 20 + row, "note": "x" * (row * 7 % 11)} for row in range(ROWS)
    ]
    return JsonLines(records=tuple(json.dumps(record).encode() for record in records))


def _edits(table: TableFile, unit_column: str | None) -> Iterator[Edit]:
    places: Sequence[int] = (1, ROWS // 2 - 1, ROWS - 1)
    for place in places:
        yield null_out(table, place, unit_column)
        yield delete(table, place, unit_column)
    odd = table.odd(1, "age")
    for what in (name for name in ODD if name in odd):
        yield replace(table, 1, Odd(what, odd[what]), unit_column)
        yield insert(table, ROWS // 2, Odd(what, odd[what]), unit_column)


def _request(model: Path, unit: str, held_out: float) -> Request:
    sections: dict[str, Any] = {
        "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
        "preflight": {"disabled_checks": ["dataset.size"]},
        "data": {"holdout": held_out},
        "guarantee": {
            "columns": {"person": {"type": "any"}, "age": {"type": "any"}, "note": {"type": "any"}}
        },
        "training": {
            "pretrained_model": model.name,
            "num_input_records_to_sample": 20,
            "batch_size": 1,
            "gradient_accumulation_steps": 2,
        },
    }
    if unit == "column":
        sections["guarantee"]["unit_column"] = UNIT
    if unit == "group":
        sections["data"]["group_training_examples_by"] = UNIT
    policy = ModelPolicy(models_dir=str(model.parent))
    return Request(job_id="audit", table="table", config=parse_config(sections), seed=1, policy=policy)
