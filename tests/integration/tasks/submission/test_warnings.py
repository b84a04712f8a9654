"""The warnings of a submission, as its command tells them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tasks import cli
from tasks.settings import Settings


def test_submit_tells_and_counts_the_warnings(
    settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in settings.as_environment().items():
        monkeypatch.setenv(name, value)
    table = tmp_path / "t.csv"
    table.write_text("c,other\n0123,x\n45,x\n")
    few = "training.num_input_records_to_sample=16"
    assert cli.run(["submit", str(table), "--json", "--set", few]) == 0
    said = capsys.readouterr()
    short, zeros = json.loads(said.out)["warnings"]
    assert said.err.splitlines() == [f"warning: {short}", f"warning: {zeros}", "2 warnings"]
    assert zeros.startswith("c: leading zeros lost in 1 cell")
