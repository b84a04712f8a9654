"""Tables of a few rows, in every format and of every kind, with a config and one neighbour each."""

from __future__ import annotations

import datetime
import decimal
import json
import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pyarrow as pa
from hypothesis import strategies as st

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.privacy.audit.neighbours import edits
from nss_train.privacy.audit.neighbours.edits import Edit, Kind
from nss_train.privacy.audit.neighbours.replay import Case
from nss_train.privacy.audit.neighbours.tables import Csv, JsonLines, Parquet, TableFile, quoted

WORDS = ("Rome", "Oslo", "Bern", "Zoë", "a b", "x,y", 'a "b"', "NA", "true", "1")
CELLS: Mapping[str, Callable[[random.Random], Any]] = {
    "integers": lambda r: r.randrange(18, 90),
    "large integers": lambda r: r.randrange(2**53, 2**62),
    "numbers": lambda r: r.randrange(200) / 8,
    "words": lambda r: r.choice(WORDS),
    "booleans": lambda r: r.random() < 0.5,
    "codes": lambda r: f"{r.randrange(500, 9999):05d}",
    "dates": lambda r: f"2024-{r.randrange(1, 13):02d}-{r.randrange(1, 29):02d}",
    "lists": lambda r: [r.randrange(9) for _ in range(r.randrange(3))],
    "records": lambda r: {"k": r.randrange(9), "l": r.choice(WORDS)},
    "gaps": lambda r: None if r.random() < 0.5 else r.randrange(9),
    "all kinds": lambda r: r.choice([1, 2.5, "x", None, True, [1], {"k": None}]),
    "nothing": lambda _: None,
    "texts": lambda r: " ".join(r.choice(WORDS) for _ in range(r.randrange(9))),
}
ARROW: Mapping[str, tuple[pa.DataType, Callable[[random.Random], Any]]] = {
    "integers": (pa.int64(), CELLS["integers"]),
    "small integers": (pa.int8(), lambda r: r.randrange(-9, 9)),
    "integers with gaps": (pa.int64(), CELLS["gaps"]),
    "numbers": (pa.float64(), CELLS["numbers"]),
    "halves": (pa.float32(), CELLS["numbers"]),
    "booleans": (pa.bool_(), CELLS["booleans"]),
    "booleans with gaps": (pa.bool_(), lambda r: r.choice([True, False, None])),
    "words": (pa.string(), CELLS["words"]),
    "large words": (pa.large_string(), CELLS["words"]),
    "categories": (pa.dictionary(pa.int32(), pa.string()), CELLS["words"]),
    "decimals": (pa.decimal128(10, 2), lambda r: decimal.Decimal(r.randrange(999)) / 4),
    "days": (pa.date32(), lambda r: datetime.date(2024, r.randrange(1, 13), r.randrange(1, 29))),
    "moments": (
        pa.timestamp("us"),
        lambda r: datetime.datetime(2024, 1, r.randrange(1, 29)),  # noqa: DTZ001 - a column without a zone
    ),
    "lists": (pa.list_(pa.int64()), CELLS["lists"]),
    "records": (pa.struct([("k", pa.int64()), ("l", pa.string())]), CELLS["records"]),
    "nothing": (pa.null(), CELLS["nothing"]),
}
NAMES = ("id", "age", "city", "visited_at", "price", "note, of a doctor", "größe")
UNIT = "person"
EDITS = 4
"""Number of neighbours of each table."""
FORMATS = ("csv", "jsonl", "parquet")


@dataclass(frozen=True, kw_only=True)
class Drawn:
    """A table, its config, and the edits that make its neighbours."""

    format: str
    kinds: tuple[str, ...]
    rows: int
    seed: int
    unit: str
    """Kind of the unit: ``record``, ``column`` or ``group``."""
    sections: Mapping[str, Any]
    edits: tuple[Edit, ...]
    table: TableFile

    def request(self, model: str) -> Request:
        sections = {**self.sections, "training": self.sections["training"] | {"pretrained_model": model}}
        policy = ModelPolicy(models_dir="/")
        return Request(
            job_id="job-0000001", table="table", config=parse_config(sections), seed=1, policy=policy
        )

    def case(self, model: Path) -> Case:
        """Return the case to compare."""
        return Case(table=self.table, request=self.request(str(model)), edits=self.edits)


@st.composite
def cases(draw: st.DrawFn) -> Drawn:
    """Draw a table: hypothesis decides on what is of interest, a seed on the cells."""
    format_ = draw(st.sampled_from(FORMATS))
    kinds = tuple(
        draw(
            st.lists(
                st.sampled_from(sorted(ARROW if format_ == "parquet" else CELLS)), min_size=1, max_size=3
            )
        )
    )
    rows, seed = draw(st.integers(3, 30)), draw(st.integers(0, 2**32))
    unit = draw(st.sampled_from(["record", "column", "group"]))
    table = make_table(format_, kinds, rows, seed, has_unit=unit != "record")
    unit_column = None if unit == "record" else UNIT
    return Drawn(
        format=format_,
        kinds=kinds,
        rows=rows,
        seed=seed,
        unit=unit,
        sections=draw(configs(table.columns, unit, format_)),
        edits=tuple(draw(neighbours(table, unit_column)) for _ in range(EDITS)),
        table=table,
    )


def make_table(format_: str, kinds: tuple[str, ...], rows: int, seed: int, *, has_unit: bool) -> TableFile:
    """Make a table of these kinds of columns, with the unit's in front."""
    chance = random.Random(seed)
    names = [*([UNIT] if has_unit else []), *NAMES[: len(kinds)]]
    if format_ == "parquet":
        return _parquet(names, kinds, rows, chance, has_unit=has_unit)
    makes = [*([lambda r: f"p{r.randrange(4)}"] if has_unit else []), *(CELLS[kind] for kind in kinds)]
    records = [{name: make(chance) for name, make in zip(names, makes, strict=True)} for _ in range(rows)]
    if format_ == "jsonl":
        return JsonLines(records=tuple(json.dumps(record).encode() for record in records))
    lines = [b",".join(map(_csv_cell, record.values())) for record in records]
    return Csv(header=b",".join(map(quoted, names)), records=tuple(lines))


def _parquet(
    names: list[str], kinds: tuple[str, ...], rows: int, chance: random.Random, *, has_unit: bool
) -> Parquet:
    columns = [ARROW[kind] for kind in kinds]
    if has_unit:
        columns.insert(0, (pa.string(), lambda r: f"p{r.randrange(4)}"))
    made = [pa.array([make(chance) for _ in range(rows)], type=kind) for kind, make in columns]
    return Parquet.of(pa.table(dict(zip(names, made, strict=True))))


def _csv_cell(value: Any) -> bytes:
    if value is None:
        return b""
    return quoted(value if isinstance(value, str) else json.dumps(value))


TYPES = st.sampled_from(["integer", "number", "boolean", "string", "datetime", "json", "any"])
DECLARED = st.one_of(
    st.builds(lambda kind: {"type": kind}, TYPES),
    st.just({"type": "number", "minimum": 0, "maximum": 30}),
    st.just({"type": "integer", "minimum": 20, "nullable": False}),
    st.just({"type": "string", "categories": ["Rome", "Oslo"], "other": "elsewhere"}),
    st.just({"type": "string", "categories": ["Rome"], "nullable": False}),
    st.just({"type": "datetime", "format": "%Y-%m-%d"}),
    st.just({"type": "datetime", "format": "%Y-%m-%d", "categories": ["2024-01-02", "NA"], "other": "later"}),
    st.just({"type": "any", "minimum": 1}),
)
OF_UNIT = st.sampled_from([{"type": "string"}, {"type": "any"}, {"type": "string", "nullable": False}])
"""Declarations of the column that names units: bounds or categories would make one unit of several."""


@st.composite
def configs(draw: st.DrawFn, columns: tuple[str, ...], unit: str, format_: str) -> dict[str, Any]:
    """Draw a config that fits the table, of a strict job most of the time."""
    declared = {
        name: draw(OF_UNIT if name == UNIT else DECLARED)
        for name in columns
        if format_ == "jsonl" or draw(st.booleans())
    }
    holdout = draw(st.sampled_from([0, 10, 0.3]))
    counts: list[Any] = [40, "noisy"]
    if not holdout:  # a few units, of whom none may be held out
        counts += [4, 4] if unit != "record" else [4, None, "rows"]
    units = draw(st.sampled_from(counts))
    strict = draw(st.sampled_from([True, True, True, False]))
    guarantee = {
        "schema_source": draw(st.sampled_from(["private", "declared"])),
        "columns": declared,
        "max_records_per_unit": draw(st.sampled_from([1, 2, 64])),
        "max_tokens_per_unit": draw(st.sampled_from([None, None, 60, 200])),
        "strict": strict,
        "multiline_cells": False,
    } | ({} if units is None else {"units": units})
    data = {"holdout": holdout}
    if unit == "column":
        guarantee["unit_column"] = UNIT
    if unit == "group":
        data |= {"group_training_examples_by": UNIT}
        data |= {"order_training_examples_by": draw(st.sampled_from([None, columns[-1]]))}
    training = {"num_input_records_to_sample": 20, "batch_size": 1, "gradient_accumulation_steps": 2}
    return {
        "privacy": {"dp_enabled": True, "epsilon": 8.0, "delta": 1e-5},
        "preflight": {"disabled_checks": ["dataset.size"]},
        "guarantee": guarantee,
        "data": data,
        "training": training | ({} if strict else {"validation_ratio": 0.3}),
    }


@st.composite
def neighbours(draw: st.DrawFn, table: TableFile, unit_column: str | None) -> Edit:
    """Draw one edit of a table."""
    kind, place = draw(st.sampled_from(Kind)), draw(st.integers(0, len(table.records) - 1))
    if kind is Kind.NULL_OUT:
        return edits.null_out(table, place, unit_column)
    if kind is Kind.DELETE:
        return edits.delete(table, place, unit_column)
    column = draw(st.sampled_from(table.columns))
    found = table.odd(place, column)
    name = draw(st.sampled_from(sorted(found)))
    odd = edits.Odd(f"{name} in {column}", found[name])
    return (edits.replace if kind is Kind.REPLACE else edits.insert)(table, place, odd, unit_column)
