"""A command can write every table, whatever the locale and the shell have left of its streams."""

from __future__ import annotations

import io
import sys

import pytest

from tasks.cli import streams


def test_letters_that_the_locale_cannot_hold_are_written_as_utf_8(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    for name in ("stdout", "stderr"):
        monkeypatch.setattr(sys, name, io.TextIOWrapper(written, encoding="ascii"))
    streams.prepare()
    sys.stdout.write("größe 東京 \ud800")
    sys.stdout.flush()
    assert written.getvalue() == "größe 東京 \\ud800".encode()


def test_a_stream_that_the_shell_has_closed_takes_what_is_written(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stdout", None)
    monkeypatch.setattr(sys, "stderr", None)
    streams.prepare()
    with sys.stdout, sys.stderr:
        assert sys.stdout.write("a") == sys.stderr.write("b") == 1
