"""Compressed files are unpacked within the limits of tables, or refused."""

from __future__ import annotations

import bz2
import gzip
import json
import lzma
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import feather

from nss_train.contract import TableLimits
from nss_train.data.reading.packed import open_bytes, unpacked
from nss_train.data.source import read_table
from nss_train.errors import DataError
from nss_train.formats import Compression
from tasks.jobs.table import check_table_file

from .files import FRAME, Refused, check_refused, write_xlsx, zipped, zstd

REFUSED: dict[str, Refused] = {
    "two files in an archive": ("t.zip", zipped("a.csv", "b.csv"), r"holds 2 files"),
    "hidden files beside two": (
        "t.zip",
        zipped("a.csv", ".DS_Store", "b.csv"),
        r"2 files \('a.csv', 'b.csv'",
    ),
    "an archive of something else": ("t.zip", zipped("a.exe"), r"holds 'a.exe'"),
    "a bzip2 file": ("t.csv", bz2.compress(b"a,b\n1,2\n3,4\n"), r"the file is compressed"),
    "an empty bzip2 file": ("t.csv", bz2.compress(b""), r"the file is compressed"),
    "an xz file": ("t.csv", lzma.compress(b"a,b\n1,2\n3,4\n"), r"the file is compressed"),
    "a name that says gzip": ("t.csv.gz", b"a,b\n1,2\n", r"not packed as .gz"),
    "half of a gzip": ("t.csv.gz", gzip.compress(b"a,b\n" * 99)[:-9], r"cannot be unpacked"),
    "a zip that is newer than this": (
        "t.zip",
        zipped("a.csv").replace(b"\x14\0", b"\xf0\0"),
        r"cannot be unpacked",
    ),
    "a damaged zip": ("t.zip", zipped("a.csv")[:60], r"cannot be unpacked"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_a_file_that_cannot_be_unpacked_is_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


def test_hidden_files_in_an_archive_are_no_tables(tmp_path: Path) -> None:
    (tmp_path / "t.zip").write_bytes(zipped("a.csv", ".DS_Store", "b/._a.csv"))
    assert len(read_table(tmp_path / "t.zip")) == len(FRAME)


LIMITS = TableLimits(file_bytes=2**16, rows=1_000, expansion=20, small_bytes=2**12, decoded_bytes=2**18)


def _gzip_bomb(path: Path) -> None:
    path.write_bytes(gzip.compress(b"a,b\n" + b"0,0\n" * 10_000))


def _zstd_bomb(path: Path) -> None:
    path.write_bytes(zstd(b"a,b\n" + b"0,0\n" * 100_000))


def _feather_bomb(path: Path) -> None:
    table = pa.table({"a": pa.array([0] * 900), "b": pa.array(["x" * 1_000] * 900)})
    feather.write_feather(table, str(path), compression="zstd")


def _xlsx_bomb(path: Path) -> None:
    write_xlsx(path, [["a"], ["x" * 2**20], ["y"]])


def _json_bomb(path: Path) -> None:
    path.write_text("[" + ", ".join(json.dumps({"a": n}) for n in range(2_000)) + "]")


BOMBS: dict[str, tuple[Callable[[Path], None], str]] = {
    "t.csv.gz": (_gzip_bomb, "expansion"),
    "t.csv.zst": (_zstd_bomb, "file_bytes|table.expansion"),
    "t.feather": (_feather_bomb, "decoded_bytes"),
    "t.xlsx": (_xlsx_bomb, "expansion"),
    "t.json": (_json_bomb, "rows"),
}


@pytest.mark.parametrize("name", BOMBS)
def test_a_packed_file_is_not_unpacked_beyond_its_limits(name: str, tmp_path: Path) -> None:
    make, limit = BOMBS[name]
    make(tmp_path / name)
    with pytest.raises(DataError, match=rf"table\.{limit}"):
        read_table(tmp_path / name, LIMITS)


def test_a_name_that_begins_as_bzip2_does_is_a_name(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("BZh,n\nx,1\ny,2\n")
    check_table_file(tmp_path / "t.csv")
    assert list(read_table(tmp_path / "t.csv").columns) == ["BZh", "n"]


@pytest.mark.parametrize("content", [b"", b"a,b\n1,2\n"])
def test_the_bytes_of_a_packed_file_are_those_that_were_packed(content: bytes, tmp_path: Path) -> None:
    made = {Compression.GZIP: gzip.compress(content), Compression.ZSTD: zstd(content), None: content}
    for compression, data in made.items():
        path = tmp_path / f"t.csv{compression or ''}"
        path.write_bytes(data)
        with open_bytes(path, compression) as file:
            assert file.read() == content


def test_an_unpacked_copy_is_gone_afterwards_and_a_plain_file_is_not_copied(tmp_path: Path) -> None:
    (tmp_path / "t.csv.gz").write_bytes(gzip.compress(b"a,b\n1,2\n"))
    with unpacked(tmp_path / "t.csv.gz", None) as plain:
        assert (plain.name, plain.read_bytes()) == ("t.csv", b"a,b\n1,2\n")
    assert not plain.exists()
    (tmp_path / "t.csv").write_bytes(b"a,b\n")
    with unpacked(tmp_path / "t.csv", None) as plain:
        assert plain == tmp_path / "t.csv"
    assert plain.exists()
