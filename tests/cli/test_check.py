"""``nss-train check``: what a table's owner learns of it, and no one else."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from nss_train.config import parse_config

CONFIG = """
privacy: {dp_enabled: true, epsilon: 4}
guarantee: {unit_column: zip, max_records_per_unit: 2, columns: {age: {type: integer, maximum: 90}}}
"""
TABLE = """zip,age,seen,note
00501,63,2024-01-31,x
00501,unknown,2024-02-01,"a, b"
00501,120,2024-02-02,
,7,2024-02-03,y
10115,8,2024-02-04,"first
second",z

"""


@pytest.fixture
def table(tmp_path: Path) -> Path:
    (tmp_path / "job.yaml").write_text(CONFIG)
    (tmp_path / "t.csv").write_text(TABLE)
    return tmp_path / "t.csv"


def check(table: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tasks.cli", "check", str(table), *options]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)


def test_the_owner_learns_exactly_what_would_not_be_read(table: Path) -> None:
    done = check(table, "--config", str(table.parent / "job.yaml"), "--json")
    found: dict[str, Any] = json.loads(done.stdout)
    assert (done.returncode, found["places"], found["null_records"]) == (0, 7, 3)
    assert {fault: told["first"] for fault, told in found["faults"].items()} == {
        "empty": [7],
        "a stray quote": [6],
        "a quote that is not closed on its line": [5],
    }
    assert found["columns"]["age"]["counts"] == {
        "null": 3,
        "fits": 2,
        "not of the type": 1,
        "beyond a bound": 1,
    }
    units = found["units"]
    assert (units["unit"], units["count"], units["largest"]) == ("value of zip", 1, 3)
    assert (units["records_beyond_the_limit"], units["records_without_a_unit"]) == (1, 1)
    assert any("multiline_cells" in advice for advice in found["advice"])


def test_what_is_proposed_is_a_config_and_comes_with_a_warning(table: Path) -> None:
    done = check(table, "--config", str(table.parent / "job.yaml"))
    assert "What is declared is published" in done.stdout
    shown = done.stdout.split("# proposed declarations\n")[1].split("\nWhat is declared")[0]
    columns = parse_config(yaml.safe_load(shown)).guarantee.columns
    assert {name: (column.type, column.format) for name, column in columns.items()} == {
        "zip": ("string", None),
        "seen": ("datetime", "%Y-%m-%d"),
        "note": ("string", None),
    }


def test_columns_of_json_lines_are_proposed_from_all_their_keys(tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl"
    path.write_text('{"a": 1}\n{"b": [1], "a": 2}\nnonsense\n')
    found = json.loads(check(path, "--json").stdout)
    assert yaml.safe_load(found["proposal"]) == {
        "guarantee": {"columns": {"a": {"type": "integer"}, "b": {"type": "json"}}}
    }
    assert found["faults"]["not JSON"] == {"count": 1, "first": [3]}


def test_a_declaration_of_no_column_is_refused_here_too(table: Path) -> None:
    (table.parent / "job.yaml").write_text("guarantee: {columns: {agee: {}}}")
    done = check(table, "--config", str(table.parent / "job.yaml"))
    assert done.returncode == 2
    assert "guarantee.columns.agee" in done.stderr
