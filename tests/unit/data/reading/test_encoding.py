"""The encoding of a text file is found, declared or refused: no letter is read as another."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.config.sections.reading import ReadingParameters
from nss_train.data.reading.text.encoding import find_encoding
from nss_train.data.source import read_table
from nss_train.errors import DataError, ParameterError

from .files import Refused, check_refused

REFUSED: dict[str, Refused] = {
    "letters of an unknown alphabet": (
        "t.csv",
        b"a,b\n1,\xe9\xd6\xd0\n2,\x9d\n",
        r"reading.encoding: cp1252",
    ),
    "letters of Japan": ("t.csv", "id,都市\n1,東京\n2,大阪\n".encode("cp932"), r"reading.encoding"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_letters_that_could_be_others_are_refused(kind: str, tmp_path: Path) -> None:
    check_refused(*REFUSED[kind], tmp_path)


NAMES = {
    "cp1252": "Müller Köln größer als üblich",
    "cp1250": "Łukasz Łódź Małgorzata Gdańsk",
    "cp1251": "Иван Москва",
    "cp1253": "Αθήνα Γιώργος",
    "cp1254": "İstanbul Şişli Ağrı",
    "gb18030": "北京 中国 上海 王小明",
    "shift_jis": "東京 日本 大阪 カタカナ",
    "mac_roman": "Müller Hélène",
    "cp850": "Müller Köln",
}


@pytest.mark.parametrize("encoding", NAMES)
def test_no_letter_is_ever_read_as_another(encoding: str, tmp_path: Path) -> None:
    words = NAMES[encoding].split()
    text = "n,word\n" + "".join(f"{number},{word}\n" for number, word in enumerate(words * 5))
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    if encoding == "cp1252":
        assert read_table(tmp_path / "t.csv")["word"].tolist() == words * 5
    else:
        with pytest.raises(DataError, match=r"not UTF-8 text; it may be .*reading\.encoding"):
            read_table(tmp_path / "t.csv")
    named = read_table(tmp_path / "t.csv", None, ReadingParameters(encoding=encoding))
    assert named["word"].tolist() == words * 5


@pytest.mark.parametrize("encoding", ["nonsense", "hex", "undefined", "a\0b", "punycode", "idna"])
def test_an_encoding_that_nobody_knows_is_the_config_s_fault(encoding: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n1,2\n3,4\n")
    with pytest.raises(ParameterError, match=r"reading.encoding = "):
        read_table(tmp_path / "t.csv", None, ReadingParameters(encoding=encoding))


def test_a_letter_that_two_blocks_of_the_file_share_is_no_fault(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a" * (2**20 - 1) + "é".encode() + b"\n")
    assert find_encoding(tmp_path / "t.csv", None) == "utf-8"


def test_a_fault_far_from_the_beginning_is_found_with_its_place(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a" * 2**21 + b"\xff\n")
    with pytest.raises(DataError, match="near byte 2,097,152"):
        find_encoding(tmp_path / "t.csv", "utf-8")


@pytest.mark.parametrize("name", ["utf8", "UTF-8", "utf-8-sig"])
def test_an_encoding_has_one_name_however_it_is_written(name: str, tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_text("a,b\n")
    assert find_encoding(tmp_path / "t.csv", name) == "utf-8"


def test_bytes_of_zero_are_no_text(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(b"a,b\0\n")
    with pytest.raises(DataError, match="binary content"):
        find_encoding(tmp_path / "t.csv", None)


@pytest.mark.parametrize("encoding", [None, "utf-8", "cp1252"])
def test_a_zero_byte_far_below_the_header_is_refused_with_its_line(
    encoding: str | None, tmp_path: Path
) -> None:
    """Pandas would end the cell there without a word."""
    (tmp_path / "t.csv").write_bytes(b"a,b\n" + b"1,x\n" * 30_000 + b"2,y\0z\n")
    with pytest.raises(DataError, match=r"a zero byte in line 30002"):
        read_table(tmp_path / "t.csv", reading=ReadingParameters(encoding=encoding))


def test_few_lines_of_another_encoding_are_named_instead_of_taking_the_whole_file_for_it(
    tmp_path: Path,
) -> None:
    lines = ["a,b", *["1,Köln"] * 20]
    (tmp_path / "t.csv").write_bytes("\n".join(lines).encode() + b"\n2,caf\xe9\n3,na\xefve\n")
    with pytest.raises(DataError, match=r"line 22 = .*not UTF-8(.|\n)*line 23 = "):
        read_table(tmp_path / "t.csv")
