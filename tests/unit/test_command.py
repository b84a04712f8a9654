"""The library's programs say what is wrong with a call in one line, and exit as the error says."""

from __future__ import annotations

import json

import pytest

from nss_train.command import Parser, run
from nss_train.errors import DataError, Problem


@pytest.fixture
def parser() -> Parser:
    made = Parser(prog="tool")
    made.add_argument("--table")
    below = made.add_subparsers().add_parser("train")
    below.add_argument("--seed")
    return made


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["--tabel"], "no such argument: --tabel; did you mean --table?"),
        (["train", "--sed=5"], "no such argument: --sed=5; did you mean --seed?"),
        (["--qqq"], "no such argument: --qqq; see tool --help"),
        (["--tab"], "no such argument: --tab"),
    ],
)
def test_an_unknown_option_is_one_line_with_the_nearest_one(
    arguments: list[str], says: str, parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        parser.parse_args(arguments)
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert says in said
    assert said.count("\n") == 1


def test_control_characters_of_a_call_do_not_reach_the_terminal(
    parser: Parser, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        parser.parse_args(["--\x1b[2J\x07"])
    assert "\x1b" not in capsys.readouterr().err


def test_an_error_is_written_for_people_and_for_programs(capsys: pytest.CaptureFixture[str]) -> None:
    def find() -> dict[str, int]:
        raise DataError("No table.", [Problem(field="table", value="x.csv", remedy="name another")])

    shown: list[dict[str, int]] = []
    code = run(find, show=shown.append, as_json=True)
    told = capsys.readouterr()
    assert code == DataError.exit_code != 0
    assert json.loads(told.out)["error"]["message"] == "No table."
    assert "name another" in told.err
    assert run(find, show=shown.append, as_json=False) == code
    assert capsys.readouterr().out == ""
    assert shown == []


def test_a_result_is_one_json_object_or_shown(capsys: pytest.CaptureFixture[str]) -> None:
    shown: list[dict[str, int]] = []
    assert run(lambda: {"rows": 3}, show=shown.append, as_json=False) == 0
    assert shown == [{"rows": 3}]
    assert run(lambda: {"rows": 3}, show=shown.append, as_json=True) == 0
    assert json.loads(capsys.readouterr().out) == {"rows": 3}
