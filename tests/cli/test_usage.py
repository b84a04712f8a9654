"""Every mistyped command and option is reported in one line, with exit code 2."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from tasks import cli
from tasks.cli import usage

Command = Any
"""A command as typer makes it; its classes are private."""


def commands(command: Command, path: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Command]]:
    """Yield every command of the app with the words that call it, also those within groups."""
    below = getattr(command, "commands", {})
    if not below:
        yield path, command
    for name, one in below.items():
        yield from commands(one, (*path, name))


ALL = dict(commands(typer.main.get_command(cli.app)))
GROUPS = [("config",), ("model",), ("budget",), ("privacy",)]


def options_of(command: Command) -> list[Command]:
    return [one for one in command.params if one.param_type_name == "option" and one.name != "help"]


def misspelled(name: str) -> str:
    """Return the name misspelled, so that no other option or command has it."""
    return f"{name[:-2]}{name[-1]}x"


def mistakes() -> Iterator[list[str]]:
    for group in [(), *GROUPS]:
        for path in ALL:
            if path[:-1] == group:
                yield [*group, misspelled(path[-1])]
    for path, command in ALL.items():
        arguments = [one for one in command.params if one.param_type_name == "argument"]
        given = ["x"] * len(arguments)
        required = [word for one in options_of(command) if one.required for word in (one.opts[0], "1")]
        yield [*path, *required, *given, "superfluous"]
        if any(one.required for one in arguments):
            yield list(path)
        for option in options_of(command):
            yield [*path, *given, misspelled(option.opts[0])]
            if not option.is_flag:
                yield [*path, *given, option.opts[0]]  # without its value
                if option.type_descriptor.annotation in (int, float):
                    yield [*path, *given, option.opts[0], "many"]


MISTAKES = [pytest.param(words, id=" ".join(words)) for words in mistakes()]


def test_every_command_and_option_is_mistyped() -> None:
    assert len(MISTAKES) >= 150
    assert len(ALL) >= 25


@pytest.mark.parametrize("words", MISTAKES)
def test_a_mistake_is_one_line_and_exit_code_2(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    code = cli.run(words)
    said = capsys.readouterr()
    assert code == 2
    assert said.out == ""
    assert said.err.count("\n") == 1, said.err
    assert "--help" in said.err or "requires an argument" in said.err


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["statsu", "x"], "did you mean 'status'"),
        (["run", "t.csv", "--confg", "c.yaml"], "did you mean --config"),
        (["model", "ad", "x"], "did you mean 'add'"),
        (["status"], "missing argument 'job_id'"),
        (["sample", "abcdefgh", "--format", "xml"], "'xml' is not one of 'table', 'csv', 'jsonl'"),
        (["run", "t.csv", "--rows", "0"], "greater than or equal to 1"),
        (["examples", "t.csv", "--model", "m", "--entry", "front"], "'backend'"),
    ],
)
def test_the_nearest_name_or_the_reason_is_told(
    words: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    assert says in capsys.readouterr().err.lower()


@pytest.mark.parametrize(
    ("words", "field"),
    [
        (["worker", "--name", "a\udcff"], "name"),
        (["worker", "--queues", "a\udcff"], "queues"),
        (["metrics", "--host", "a\udcff"], "host"),
    ],
)
def test_a_server_with_half_a_character_in_its_name_is_not_started(
    words: list[str], field: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(words) == 2
    assert f"- {field} = 'a\\\\udcff': it has half a character" in capsys.readouterr().err


def test_with_json_a_mistake_is_an_object(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["status", "--json"]) == 2
    assert "job_id" in json.loads(capsys.readouterr().out)["error"]["message"]


@pytest.mark.parametrize("path", ALL, ids=" ".join)
def test_every_help_page_has_an_example_that_can_be_typed(
    path: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run([*path, "-h"]) == 0
    page = " ".join(capsys.readouterr().out.split())
    example = str(ALL[path].epilog).removeprefix("Example: ")
    assert example in page
    program, *words = shlex.split(example)
    assert (program, tuple(words[: len(path)])) == ("nss-train", path)
    ALL[path].make_context(program, words[len(path) :])  # raises what a mistake would


def test_every_argument_and_option_is_explained() -> None:
    parameters = [(path, one) for path, command in ALL.items() for one in command.params]
    assert [(path, one.name) for path, one in parameters if not one.help] == []


def test_the_version_is_an_option_too(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--version"]) == 0
    assert cli.run(["version"]) == 0
    first, second = capsys.readouterr().out.splitlines()
    assert first == second


def test_a_shell_is_told_what_may_be_typed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("_NSS_TRAIN_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", "nss-train mod")
    monkeypatch.setenv("COMP_CWORD", "1")
    with pytest.raises(SystemExit):
        cli.run(["mod"])
    assert capsys.readouterr().out.split() == ["model"]


PROGRAMS = [
    "nss_train.cost.__main__",
    "nss_train.data.__main__",
    "nss_train.data.private.__main__",
    "nss_train.privacy.__main__",
    "nss_train.artifacts.__main__",
    "nss_train.model.__main__",
    "tasks.worker.process",
]


@pytest.mark.parametrize("module", PROGRAMS)
@pytest.mark.parametrize("words", [["--jso"], ["--nothing\nof\x1bthe-kind"]], ids=["near", "odd"])
def test_a_program_of_the_library_says_it_in_one_line_too(
    module: str, words: list[str], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program = importlib.import_module(module)
    monkeypatch.setattr(sys, "argv", [module, *words])
    with pytest.raises(SystemExit) as caught:
        program.main()
    said = capsys.readouterr().err
    assert caught.value.code == 2
    assert said.count("\n") == 1
    assert said.isascii()
    assert "\x1b" not in said


def test_a_program_of_the_library_names_the_nearest_option(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nss_train.privacy import __main__ as program

    monkeypatch.setattr(sys, "argv", ["x", "estimate", "t.csv", "--confg", "c.yaml"])
    with pytest.raises(SystemExit):
        program.main()
    assert "no such argument: --confg; did you mean --config?" in capsys.readouterr().err


def test_what_was_typed_steers_no_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from nss_train.artifacts import __main__ as program

    monkeypatch.setattr(sys, "argv", ["x", "folder", "--base", "model", "--no\x1b[2J\nthing"])
    with pytest.raises(SystemExit):
        program.main()
    assert cli.run(["status", "--no\x1b[2J\nthing"]) == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 2
    assert "\x1b" not in said


def test_a_reason_of_several_lines_is_told_in_one() -> None:
    assert "\n" not in str(usage.refusal(typer.BadParameter("choose from:\n\tone,\n\tanother")))


def typed(command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a line of a shell, where ``nss-train`` is this command."""
    return subprocess.run(
        ["bash", "-c", command.replace("nss-train", f"{sys.executable} -m tasks.cli")],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("command", ["config show", "config show --json", "version --json"])
def test_output_that_a_full_disk_does_not_take_is_one_line(command: str) -> None:
    done = typed(f"nss-train {command} > /dev/full")
    assert (done.returncode, len(done.stderr.splitlines())) == (3, 1), done.stderr
    assert "No space left" in done.stderr


def test_a_reader_that_goes_early_is_no_error() -> None:
    assert typed("nss-train config show --json | true").stderr == ""


def test_a_command_without_an_output_runs() -> None:
    done = typed("nss-train config show --json >&-")
    assert (done.returncode, done.stderr) == (0, "")


def test_output_is_whole_in_a_locale_without_its_letters() -> None:
    command = "nss-train config show --set training.pretrained_model=größer"
    done = typed(command, PYTHONIOENCODING="ascii", PYTHONUTF8="1")
    assert "pretrained_model: größer" in done.stdout, done.stderr


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["run", "t.csv", "--out", "file"], "is a file"),
        (["fetch", "job", "file"], "is a file"),
        (["sample", "job", "--out", "folder"], "is a directory"),
        (["sample", "job", "--out", "nowhere/rows.csv"], "there is no folder nowhere"),
        (["examples", "t.csv", "--model", "m", "--out", "nowhere/all.json.gz"], "there is no folder nowhere"),
    ],
)
def test_a_place_that_cannot_take_the_result_is_told_before_the_work(
    words: list[str],
    says: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "file").touch()
    (tmp_path / "folder").mkdir()
    monkeypatch.chdir(tmp_path)
    assert cli.run(words) == 2
    said = capsys.readouterr().err
    assert says in said
    assert len(said.splitlines()) == 1
