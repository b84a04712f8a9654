"""How a table was read is reported where people look: in the log, a stage's figures, beside examples."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import pytest

from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request
from nss_train.stages.preparation import run

TABLE = "age;weight\n" + "".join(f"{20 + n % 50};{60 + n},5\n" for n in range(200))
READ_AS = "semicolon, UTF-8, decimal comma, 2 columns, 200 rows"


def test_one_line_says_how_the_table_was_read(
    tmp_path: Path, base_model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for name in ("in", "out"):
        (tmp_path / name).mkdir()
    (tmp_path / "in" / "table.csv").write_text(TABLE)
    request = Request(
        job_id="test-0001",
        table="table.csv",
        config=parse_config({"training": {"pretrained_model": str(base_model)}, "data": {"holdout": 0}}),
        seed=1,
        policy=ModelPolicy(models_dir=str(base_model.parent)),
    )
    events: list[Event] = []
    with caplog.at_level(logging.INFO):
        result = run(tmp_path, request, report=events.append)
    assert result.figures["read_as"] == READ_AS
    assert events[-1].fields["read_as"] == READ_AS
    assert f"read as: {READ_AS}" in caplog.text


def test_examples_show_how_the_table_was_read_and_end_in_one_message(
    tmp_path: Path, base_model: Path
) -> None:
    def examples() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "nss_train.data", "t.csv", "--model", str(base_model)]
        return subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)

    (tmp_path / "t.csv").write_text(TABLE)
    assert f"read as: {READ_AS}\n" in examples().stdout
    (tmp_path / "t.csv").write_text(TABLE.replace("20;60,5", "20;60,5;1"))
    done = examples()
    assert (done.returncode, "line 2 = '20;60,5;1'" in done.stderr) == (2, True)
    assert "Traceback" not in done.stderr
