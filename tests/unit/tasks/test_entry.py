"""Ctrl-C is answered in one line, also while the command line is still being imported."""

from __future__ import annotations

import pytest

from tasks import entry
from tasks.cli import interrupt


def test_an_interrupted_command_says_so_and_exits_as_a_shell_expects(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted() -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("tasks.cli.main", interrupted)
    with pytest.raises(SystemExit) as ended:
        entry.main()
    assert ended.value.code == interrupt.EXIT_CODE == 130
    assert capsys.readouterr().err == "interrupted\n"
