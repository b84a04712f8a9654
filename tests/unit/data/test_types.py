"""A value that cannot be trained on is refused with its column, in every way that a table comes in."""

from __future__ import annotations

import functools
import json
import uuid
from collections.abc import Iterator
from datetime import date, datetime, timedelta
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from pyarrow import feather

from nss_train.config import parse_config
from nss_train.config.sections.reading import ReadingParameters, Types
from nss_train.data.assembly.holdout import Split
from nss_train.data.prepared import Entry
from nss_train.errors import DataError
from nss_train.model.tokenizer import load_tokenizer
from nss_train.stages.preparation import prepare, prepare_split

ROWS = 200
REFUSED: dict[str, tuple[list[Any], pa.DataType | None, str]] = {
    "bytes": ([b"\xd6", None], None, "holds bytes"),
    "bytes that are text": ([b"a"], None, "holds bytes"),
    "bytes of one length": ([b"ab"], pa.binary(2), "holds bytes"),
    "bytes in lists": ([[b"a"]], None, "holds bytes"),
    "identifiers": ([uuid.UUID(int=1).bytes], pa.uuid(), "holds bytes"),
    "times of no zone": ([0], pa.timestamp("us", "Mars/Base"), "a zone that does not exist"),
    "maps": ([[("a", 1)], None], pa.map_(pa.string(), pa.int64()), "holds maps"),
    "maps in lists": ([[[("a", 1)]]], pa.list_(pa.map_(pa.string(), pa.int64())), "holds maps"),
    "dates for ever": ([date(9999, 12, 31), date(2020, 1, 1)], None, "years 1677 to 2262"),
    "dates of old": ([date(1, 1, 1), None], None, "years 1677 to 2262"),
    "times for ever": ([datetime(9999, 12, 31)], pa.timestamp("us"), "years 1677 to 2262"),  # noqa: DTZ001
    "times in seconds": ([datetime(1, 1, 1)], pa.timestamp("s"), "years 1677 to 2262"),  # noqa: DTZ001
    "dates in lists": ([[date(9999, 1, 1)], None], None, "years 1677 to 2262"),
    "dates in objects": ([{"a": date(9999, 1, 1)}, None], None, "years 1677 to 2262"),
    "very long times": ([10**18], pa.duration("s"), "years 1677 to 2262"),
    "intervals": ([pa.MonthDayNano([1, 2, 3])], None, "calendar intervals"),
}
TRAINED: dict[str, tuple[list[Any], pa.DataType | None]] = {
    "dates": ([date(2020, 1, 1), None], None),
    "durations": ([timedelta(days=1), None], None),
    "objects": ([{"a": 1, "b": None}, None], None),
    "lists": ([[1, 2], [], None], None),
    "categories": (["a", "b", None], pa.dictionary(pa.int32(), pa.string())),
    "categories of numbers": ([1, 2], pa.dictionary(pa.int32(), pa.int64())),
    "the largest numbers": ([2**64 - 1, 1], pa.uint64()),
    "half precision": ([1.5, None], pa.float16()),
}


def column(values: list[Any], kind: pa.DataType | None) -> pa.Array:
    repeated = (values * ROWS)[:ROWS]
    return pa.array(repeated, type=kind) if kind is not None else pa.array(repeated)


def written(name: str, array: pa.Array, folder: Path) -> Iterator[Path]:
    table = pa.table({"id": range(ROWS), name: array})
    feather.write_feather(table, str(folder / "t.feather"))
    yield folder / "t.feather"
    try:
        pq.write_table(table, folder / "t.parquet")
    except pa.ArrowException:
        return  # a type that Parquet does not have
    yield folder / "t.parquet"


@pytest.fixture(scope="module", autouse=True)
def one_tokenizer() -> Iterator[None]:
    """Load the tokenizer once: that takes longer than all else here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("nss_train.stages.preparation.load_tokenizer", functools.cache(load_tokenizer))
        yield


CONFIG = parse_config({"data": {"random_state": 1, "holdout": 0}})
AS_NSS = CONFIG.model_copy(update={"reading": ReadingParameters(types=Types.NSS)})
"""Config that accepts dates and durations too, of which no generated row is valid."""


@pytest.mark.parametrize("kind", REFUSED)
def test_a_column_that_json_cannot_write_is_refused_by_name(
    kind: str, tmp_path: Path, base_model: Path
) -> None:
    values, type_, says = REFUSED[kind]
    for path in written("odd", column(values, type_), tmp_path):
        for entry in Entry:
            with pytest.raises(DataError, match=rf"- odd = .*{says}"):
                prepare(path, CONFIG, model=base_model, seed=1, entry=entry)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_column_with_an_unusual_type_is_trained(kind: str, tmp_path: Path, base_model: Path) -> None:
    for path in written("odd", column(*TRAINED[kind]), tmp_path):
        assert len(prepare(path, AS_NSS, model=base_model, seed=1).train) > 0


MIXED: dict[str, list[Any]] = {
    "lists of objects and numbers": [[1, {"b": None}], [2]],
    "objects and texts": [{"a": 1}, "x", 3],
    "objects of other types": [{"a": 1}, {"a": "x"}],
    "lists and texts": [[1], "x"],
    "numbers and texts": [1, "a", None, True],
}


@pytest.mark.parametrize("suffix", ["json", "jsonl"])
@pytest.mark.parametrize("kind", MIXED)
def test_values_of_several_types_in_a_column_are_refused_by_name(
    kind: str, suffix: str, tmp_path: Path, base_model: Path
) -> None:
    rows = [{"id": n, "odd": MIXED[kind][n % len(MIXED[kind])]} for n in range(ROWS)]
    lines = json.dumps(rows) if suffix == "json" else "".join(json.dumps(row) + "\n" for row in rows)
    (tmp_path / f"t.{suffix}").write_text(lines)
    for entry in Entry:
        with pytest.raises(DataError, match="- odd = .*no common type"):
            prepare(tmp_path / f"t.{suffix}", CONFIG, model=base_model, seed=1, entry=entry)


def test_a_frame_that_the_facade_is_given_is_refused_by_column_too(base_model: Path) -> None:
    frame = pd.DataFrame({"id": [1, 2], "odd": [b"\xff", b"a"], "when": [date(9999, 1, 1)] * 2})
    with pytest.raises(DataError, match=r"- odd = "):
        prepare_split(Split(train=frame, test=None), CONFIG, model=base_model, seed=1)
    with pytest.raises(DataError, match=r"- when = "):
        prepare_split(Split(train=frame.drop(columns="odd"), test=None), CONFIG, model=base_model, seed=1)
