"""The cost of a training is shown before it begins, and a person is asked where it should not begin."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from nss_train.contract import Stage
from nss_train.cost.cost import LONG_S, Cost
from tasks import cli
from tasks.cli import asking, display
from tasks.cli.asking import Asking, Declined
from tasks.jobs.documents import JobState
from tasks.status import JobStatus, StageState, StageStatus

FINE = Cost(steps=100, full_steps=95.0, tokens=5000, seconds=60.0, device="cpu, 2 threads")
SHORT = FINE.model_copy(update={"steps": 1, "full_steps": 0.0, "seconds": None, "device": None})
LONG = FINE.model_copy(update={"seconds": LONG_S})


def status(cost: Cost | None, state: JobState = JobState.RUNNING) -> JobStatus:
    return JobStatus(
        job_id="job-0000001",
        state=state,
        table="t.csv",
        submitted_at=datetime(2026, 1, 1, tzinfo=UTC),
        stages=(StageStatus(stage=Stage.TRAIN, state=StageState.PENDING),),
        warnings=() if cost is None else tuple(cost.warnings()),
        cost=cost,
    )


Terminal = Callable[[str], tuple[io.StringIO, io.StringIO]]


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> Terminal:
    """Return a function that fakes a terminal with typed input; it returns what is shown and stderr."""

    def at(typed: str) -> tuple[io.StringIO, io.StringIO]:
        typing, shown, said = io.StringIO(typed), io.StringIO(), io.StringIO()
        monkeypatch.setattr(typing, "isatty", lambda: True)
        monkeypatch.setattr("sys.stdin", typing)
        monkeypatch.setattr(display, "console", Console(file=shown, force_terminal=True, width=200))
        monkeypatch.setattr(display, "stderr", Console(file=said, width=200))
        return shown, said

    return at


@pytest.mark.parametrize(
    ("cost", "says"), [(SHORT, "nothing moves"), (LONG, "about 3 h on cpu, 2 threads")], ids=["short", "long"]
)
@pytest.mark.parametrize(("typed", "wanted"), [("y\n", True), ("n\n", False), ("", False)])
def test_a_job_of_no_use_or_of_hours_is_asked_about_once(
    cost: Cost, says: str, typed: str, wanted: bool, terminal: Terminal
) -> None:
    shown, _ = terminal(typed)
    asker = Asking(yes=False, as_json=False)
    states = [status(None), status(cost), status(cost), status(cost, JobState.SUCCEEDED)]
    if wanted:
        assert display.watch(states, asker).state is JobState.SUCCEEDED
    else:
        with pytest.raises(Declined):
            display.watch(states, asker)
    assert shown.getvalue().count("Go on?") == 1
    assert says in shown.getvalue()


def test_nobody_is_asked_about_a_job_of_some_minutes(terminal: Terminal) -> None:
    shown, said = terminal("")
    display.watch([status(FINE), status(FINE, JobState.SUCCEEDED)], Asking(yes=False, as_json=False))
    assert "training: 100 steps, about 5,000 tokens, about 1 min on cpu, 2 threads" in shown.getvalue()
    assert "Go on?" not in shown.getvalue()
    assert said.getvalue() == ""


def test_yes_answers_and_the_warning_is_told_all_the_same(terminal: Terminal) -> None:
    shown, said = terminal("")
    display.watch([status(LONG), status(SHORT)], Asking(yes=True, as_json=False))
    assert "Go on?" not in shown.getvalue()
    assert said.getvalue().count("warning: this takes about 3 h") == 1


def test_without_a_terminal_it_is_a_warning_and_nothing_waits(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    monkeypatch.setattr(display, "stderr", Console(stderr=True, width=200))
    assert display.stream([status(LONG)], Asking(yes=False, as_json=True)).cost == LONG
    said = capsys.readouterr()
    assert "warning: this takes about 3 h on cpu" in said.err
    assert json.loads(said.out)["cost"]["seconds"] == LONG_S


def test_what_is_declined_is_cancelled(monkeypatch: pytest.MonkeyPatch, terminal: Terminal) -> None:
    from tasks.cli import interrupt
    from tasks.cli.commands import jobs

    terminal("n\n")

    class Deployment:
        cancelled = False

        def watch(self, *_: Any, **__: Any) -> list[JobStatus]:
            return [status(SHORT, JobState.CANCELLED if self.cancelled else JobState.RUNNING)]

        def cancel(self, *_: Any, **__: Any) -> None:
            self.cancelled = True

    client: Any = Deployment()
    with pytest.raises(interrupt.Interrupted, match="job job-0000001 is cancelled"):
        jobs.follow(client, "job-0000001", as_json=False, asking=asking.Asking(yes=False, as_json=False))
    assert client.cancelled


@pytest.fixture
def table(tmp_path: Path) -> Path:
    path = tmp_path / "t.csv"
    path.write_text("a,b\n" + "".join(f"{number},{number * 7 % 11}\n" for number in range(600)))
    return path


def test_any_config_is_estimated(
    table: Path, tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: Any
) -> None:
    monkeypatch.setenv("NSS_TRAIN_HOME", str(tmp_path / "home"))
    sets = [f"training.pretrained_model={tiny_model}", "training.num_input_records_to_sample=40"]
    words = ["estimate", str(table), "--json", *(word for one in sets for word in ("--set", one))]
    assert cli.run(words) == 0
    shown = json.loads(capfd.readouterr().out)
    assert shown["read_as"].endswith("2 columns, 600 rows")
    assert shown["cost"]["steps"] == 1
    assert shown["cost"]["seconds"] > 0
    assert any("nothing moves" in warning for warning in shown["warnings"])
    assert [one.name for one in (tmp_path / "home").iterdir()] == ["paces"]
