"""Display of a stage by `status` and `watch`."""

from __future__ import annotations

import csv
import io
import json
from datetime import UTC, datetime
from typing import Any

import pytest
from rich.console import Console

from nss_train.contract import Stage
from tasks.cli import display
from tasks.cli.csv_export import RowFormat, print_rows
from tasks.jobs.documents import JobState
from tasks.status import JobStatus, StageState, StageStatus

STARTED = {"step": 0, "total_steps": 20}
PLAIN = {"step": 3, "total_steps": 20, "loss": 2.5, "learning_rate": 1e-3, "tokens_per_s": 9.5, "eta_s": 17.2}
PRIVATE = {"step": 3, "total_steps": 20, "units_per_s": 4.5, "eta_s": 17.2, "epsilon": 1.23456}


@pytest.mark.parametrize(
    ("progress", "shown"),
    [
        (None, ""),
        (STARTED, "step 0/20"),
        (PLAIN, "step 3/20  loss 2.5  9.5 tokens/s  17 s left"),
        (PRIVATE, "step 3/20  ε ≤ 1.235  4.5 units/s  17 s left"),
    ],
)
def test_a_training_is_told_at_every_moment(progress: dict[str, Any] | None, shown: str) -> None:
    train = StageStatus(stage=Stage.TRAIN, state=StageState.RUNNING, attempt=1, progress=progress)
    assert display.detail(train) == shown


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.04, "0.0 s"),
        (9.96, "10.0 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (200, "3 min 20 s"),
        (3_599, "59 min 59 s"),
        (12_900, "3 h 35 min"),
        (7_199, "2 h"),
        (86_399, "1 d"),
        (90_000, "1 d 1 h"),
        (172_799, "2 d"),
    ],
)
def test_a_time_is_told_in_its_two_largest_units(seconds: float, said: str) -> None:
    assert display.duration(seconds) == said


def test_the_longest_id_is_whole_in_the_table_of_jobs() -> None:
    job_id = "x" * 64
    status = JobStatus(
        job_id=job_id,
        state=JobState.SUCCEEDED,
        table="a long name of a table.parquet",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        stages=(),
    )
    console = Console(width=80, file=io.StringIO(), record=True)
    console.print(display.job_table([status]))
    assert job_id in console.export_text()


def test_how_the_table_was_read_is_shown_once(capsys: pytest.CaptureFixture[str]) -> None:
    states = [
        JobStatus(
            job_id="job-0000001",
            state=state,
            table="t.csv",
            submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
            stages=(),
            read_as=read_as,
        )
        for state, read_as in (
            (JobState.QUEUED, None),
            (JobState.RUNNING, "semicolon, UTF-8"),
            (JobState.SUCCEEDED, "semicolon, UTF-8"),
        )
    ]
    last = display.watch(iter(states))
    assert capsys.readouterr().out.count("read as: semicolon, UTF-8\n") == 1
    display.show_status(last, as_json=False)
    assert "read as: semicolon, UTF-8\n" in capsys.readouterr().out


ROWS = [{"a": 1, "b": "x,y"}, {"a": None, "b": "=1+1"}]


def test_sampled_rows_are_printed_for_other_programs(capsys: pytest.CaptureFixture[str]) -> None:
    print_rows(ROWS, RowFormat.CSV)
    assert list(csv.reader(capsys.readouterr().out.splitlines())) == [["a", "b"], ["1", "x,y"], ["", "'=1+1"]]
    print_rows(ROWS, RowFormat.JSONL)
    assert [json.loads(line) for line in capsys.readouterr().out.splitlines()] == ROWS


def test_what_is_wrong_with_sampled_rows_names_the_column(capsys: pytest.CaptureFixture[str]) -> None:
    reasons = {"maximum in column age": 2}
    preview = {"rows": [], "valid": 1, "invalid": 2, "reasons": reasons}
    display.tell_validity(
        preview | {"examples": {"maximum in column age": "999 is too much"}}, display.console
    )
    assert "2 × maximum in column age: 999 is too much" in capsys.readouterr().out


def test_a_model_that_writes_no_record_is_told_to_be_trained_longer(
    capsys: pytest.CaptureFixture[str],
) -> None:
    display.show_preview({"rows": [], "valid": 0, "invalid": 0, "reasons": {}, "examples": {}}, as_json=False)
    assert capsys.readouterr().out.startswith("no record was sampled: ")
