"""Arrow files are measured before they are decompressed."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather

from nss_train.config.sections.reading import ReadingParameters, Types
from nss_train.data.reading.arrow_file import arrow_size, read_arrow
from nss_train.data.source import read_table

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "no Arrow file": ("t.arrow", b"ARROW1\0\0" + b"x" * 50, r"not an Arrow file"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_is_no_arrow_file_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


@pytest.mark.parametrize("compression", ["zstd", "lz4", "uncompressed"])
def test_a_file_has_the_same_size_however_it_is_compressed(compression: str, tmp_path: Path) -> None:
    table = pa.table({"n": list(range(5_000)), "text": ["x" * 100] * 5_000}).combine_chunks()
    feather.write_feather(table, str(tmp_path / "t.arrow"), compression=compression)
    size = arrow_size(tmp_path / "t.arrow")
    assert (size.rows, size.columns) == (5_000, 2)
    assert table.nbytes <= size.decoded_bytes <= 1.5 * table.nbytes


def test_the_words_of_a_dictionary_count_although_they_are_no_rows(tmp_path: Path) -> None:
    words = pa.array([f"{n:01000}" for n in range(100)] * 2).dictionary_encode()
    feather.write_feather(pa.table({"word": words}), str(tmp_path / "t.arrow"), compression="zstd")
    size = arrow_size(tmp_path / "t.arrow")
    assert size.rows == 200
    assert size.decoded_bytes > 100_000
    assert read_arrow(tmp_path / "t.arrow")["word"].tolist() == words.to_pylist()


@pytest.mark.parametrize("types", [Types.NSS, Types.FAITHFUL])
def test_columns_in_arrows_rarer_encodings_are_read_like_any(types: Types, tmp_path: Path) -> None:
    runs = pa.array(pa.RunEndEncodedArray.from_arrays([2, 3], ["a", "b"]))
    small = pa.array([Decimal("0.50"), Decimal("1.50"), None], pa.decimal32(7, 2))
    feather.write_feather(pa.table({"run": runs, "small": small}), str(tmp_path / "t.arrow"))
    frame = read_table(tmp_path / "t.arrow", reading=ReadingParameters(types=types))
    assert frame["run"].tolist() == ["a", "a", "b"]
    assert [Decimal(cell) for cell in frame["small"][:2]] == [Decimal("0.50"), Decimal("1.50")]
