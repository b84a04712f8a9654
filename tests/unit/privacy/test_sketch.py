"""Copies are recognized under another name, others are not, and no one without the key can ask."""

from __future__ import annotations

import json
import random
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pytest

from nss_train.config.sections.guarantee import ColumnType
from nss_train.contract import SKETCH, SKETCH_KEY
from nss_train.data.private.fingerprint import leave_sketch
from nss_train.data.private.table import PrivateTable, Raw
from nss_train.privacy.sketch import KEPT, SAME, Least, Sketch, canonical_cell, canonical_record, sketch

KEY = b"k" * 32
ROWS = [{"id": b"p%d" % n, "age": b"%d" % (n % 90), "note": b"seen %d times" % (n * 7)} for n in range(6000)]
Rows = Sequence[dict[str, bytes]]


def of(rows: Iterable[dict[str, bytes]], *, key: bytes = KEY) -> Sketch:
    rows = list(rows)
    records = (canonical_record({name: canonical_cell(cell) for name, cell in row.items()}) for row in rows)
    return sketch(records, {row["id"] for row in rows if "id" in row}, key=key)


def shuffled(rows: Rows) -> list[dict[str, bytes]]:
    return random.Random(1).sample(list(rows), len(rows))


COPIES = {
    "renamed": ROWS,
    "reordered": shuffled(ROWS),
    "columns reordered": [dict(reversed(row.items())) for row in ROWS],
    "cut": ROWS[4000:5000],
    "extended": [*ROWS, *({"id": b"q%d" % n, "age": b"1", "note": b""} for n in range(30_000))],
    "converted": [row | {"age": row["age"] + b".0", "note": b'"' + row["note"] + b'"'} for row in ROWS],
    "one byte changed": [ROWS[0] | {"age": b"91"}, *ROWS[1:]],
    "the same people in another table": [{"id": row["id"], "drug": b"x"} for row in ROWS],
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_is_seen(name: str) -> None:
    assert of(COPIES[name]).overlap(of(ROWS)) >= SAME
    assert of(ROWS).overlap(of(COPIES[name])) == of(COPIES[name]).overlap(of(ROWS))


def test_another_table_is_not_seen() -> None:
    others = [{"id": b"x%d" % n, "age": b"%d" % (n % 90), "note": b"other %d" % n} for n in range(6000)]
    assert of(others).overlap(of(ROWS)) == 0
    assert of([]).overlap(of(ROWS)) == 0


@pytest.mark.parametrize("share", [0.05, 0.3, 1.0])
def test_the_share_of_the_smaller_table_is_estimated(share: float) -> None:
    small = [b"s%d" % n for n in range(4000)]
    common = small[: int(share * len(small))]
    large = [*common, *(b"l%d" % n for n in range(12_000))]
    found = sketch(small, key=KEY).overlap(sketch(large, key=KEY))
    assert found == pytest.approx(share, abs=0.1)
    assert (found >= SAME) is (share >= SAME)


def test_without_the_key_nothing_is_learned_and_nothing_compared() -> None:
    ours, theirs = of(ROWS), of(ROWS, key=b"z" * 32)
    assert ours.overlap(theirs) == 0
    assert not set(ours.records.hashes) & set(theirs.records.hashes)


def test_a_sketch_stays_small_and_has_each_member_once() -> None:
    found = sketch([b"%d" % (n % 5000) for n in range(20_000)], key=KEY).records
    assert len(found.hashes) == len(set(found.hashes)) == KEPT
    assert list(found.hashes) == sorted(found.hashes)
    assert Least().overlap(found) == 0


@pytest.mark.parametrize(
    "same",
    [
        (b"63", b"63.0", b'"63"', b" 63 ", b"6.3e1", b"+63"),
        (b"0.1", b".10", b"0.1000000000000000055"),
        (b"true", b"True", b'"TRUE"'),
        (b"2024-01-05", b"2024-01-05T00:00:00", b"2024-01-05 00:00:00"),
        (b'a "b"', b'"a \\"b\\""', b'"a ""b"""'),
        (b"", b"NA", b"null", b'""', b"NaN"),
        (b"0", b"-0.0"),
    ],
)
def test_a_value_is_the_same_in_every_format(same: tuple[bytes, ...]) -> None:
    assert len({canonical_cell(cell) for cell in same}) == 1


@pytest.mark.parametrize(
    "odd", [b"\xff\xfe", b"1e9999", b"9" * 100_000, b'"', b"2024-99-99", b"\0", rb'"\ud800"']
)
def test_an_odd_cell_is_itself(odd: bytes) -> None:
    assert canonical_cell(odd) is not None


def test_cells_cannot_be_shifted_between_columns() -> None:
    assert canonical_record({"a": b"1", "b": b"2"}) != canonical_record({"a": b"11:b1:2", "b": None})
    assert canonical_record({"a": b"1", "b": None}) == canonical_record({"a": b"1"})


def table() -> PrivateTable:
    raw = {
        "id": Raw(codes=np.array([0, 1, 2]), cells=[b"~p1", b"~p2", b""]),
        "age": Raw(codes=np.array([0, 1, 1]), cells=[b"~63.0", b""]),
    }
    types = dict.fromkeys(raw, ColumnType.ANY)
    return PrivateTable(columns=(), types=types, null=np.array([False, False, True]), raw=raw)


def test_a_table_leaves_its_sketch_for_the_supervisor_alone(tmp_path: Path) -> None:
    leave_sketch(tmp_path, table(), unit_column="id")
    assert not (tmp_path / SKETCH).exists()
    (tmp_path / "in" / SKETCH_KEY).parent.mkdir(parents=True)
    (tmp_path / "in" / SKETCH_KEY).write_bytes(KEY)
    leave_sketch(tmp_path, table(), unit_column="id")
    found = Sketch.model_validate(json.loads((tmp_path / SKETCH).read_text()))
    rows = [{"id": b"p1", "age": b"63"}, {"id": b"p2"}]
    records = (canonical_record({n: canonical_cell(c) for n, c in row.items()}) for row in rows)
    assert found == sketch(records, [b"p1", b"p2"], key=KEY)
    assert not (tmp_path / "out").exists()
