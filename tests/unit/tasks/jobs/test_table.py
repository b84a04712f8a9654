"""Facts that a glance at a table's file shows, before anything is sent."""

from __future__ import annotations

import gzip
from pathlib import Path

import pytest

from nss_train.errors import DataError, ParameterError
from nss_train.formats import kind_of, suffix_of
from tasks.jobs.submission import Submission
from tasks.jobs.table import check_table_file, describe_table
from tasks.submission.submit import check_request

GOOD = {
    "t.csv": b"a,b\n1,2\n",
    "T.CSV": b"a,b\n1,2\n",
    "t.tsv": b"a\tb\n1\t2\n",
    "t.txt": "a,b\n1,2\n".encode("utf-16"),
    "t.json": b'[{"a": 1}]',
    "t.parquet": b"PAR1....",
    "t.feather": b"ARROW1\0\0....",
    "t.xlsx": b"PK\x03\x04....",
    "t.csv.gz": gzip.compress(b"a,b\n1,2\n"),
    "t.jsonl.zst": b"\x28\xb5\x2f\xfd....",
    "t.zip": b"PK\x03\x04....",
    "t.of.2024.csv": b"a,b\n1,2\n",
}
BAD = {
    "t.xls": (b"\xd0\xcf", r"unknown format; .*\.xlsx"),
    "t.gz": (b"\x1f\x8b", "unknown format"),
    "t.csv": (gzip.compress(b"a,b\n"), "name it as it is packed, such as table.csv.gz"),
    "t.csv.gz": (b"a,b\n1,2\n", "not packed as .gz"),
    "t.arrow": (b"PAR1", "not Arrow"),
    "t.xlsx": (b"a,b\n", "not XLSX"),
    "t.tsv": (b"\x7fELF\0", "binary content"),
    "t.jsonl": (b"  \n", "the file is empty"),
}


@pytest.mark.parametrize("name", GOOD)
def test_a_file_that_is_what_its_name_says_passes(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(GOOD[name])
    check_table_file(tmp_path / name)


@pytest.mark.parametrize("name", BAD)
def test_a_file_that_is_not_is_refused_with_what_to_do(name: str, tmp_path: Path) -> None:
    content, says = BAD[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(DataError, match=says):
        check_table_file(tmp_path / name)


def test_the_whole_suffix_of_a_name_travels_with_a_job(tmp_path: Path) -> None:
    assert describe_table(tmp_path / "of.2024.CSV.GZ", strict=True).name == "table.csv.gz"
    assert (suffix_of("a.zip"), suffix_of("a.json"), suffix_of("a.b")) == (".zip", ".json", ".b")
    assert (kind_of("csv"), kind_of(".gz"), kind_of("")) == (None, None, None)


@pytest.mark.parametrize("name", ["t.xlsx", "t.csv.gz", "t.tsv", "t.feather"])
def test_a_private_job_is_refused_at_once_for_a_file_that_it_does_not_read(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(GOOD.get(name, b""))
    with pytest.raises(DataError, match=r"a private job reads \.csv, \.parquet"):
        check_request(Submission(table=tmp_path / name, config={"privacy": {"dp_enabled": True}}))


def test_a_private_job_is_told_no_marks(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD["t.csv"])
    config = {"privacy": {"dp_enabled": True}, "reading": {"delimiter": ";", "encoding": "cp1252"}}
    with pytest.raises(
        ParameterError, match=r"reading\.delimiter = ';': a private job reads commas"
    ) as caught:
        check_request(Submission(table=tmp_path / "t.csv", config=config))
    assert [p.field for p in caught.value.problems if p.field.startswith("reading")] == [
        "reading.delimiter",
        "reading.encoding",
    ]


@pytest.mark.parametrize("given", [{"delimiter": ",", "decimal": ","}, {"quote": "a"}, {"delimiter": "\n"}])
def test_marks_that_cannot_be_told_apart_are_refused(given: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(GOOD["t.csv"])
    with pytest.raises(ParameterError, match="delimiter, decimal, thousands and quote"):
        check_request(Submission(table=tmp_path / "t.csv", config={"reading": given}))
