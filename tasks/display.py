"""What the command line shows to a person."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from nss_train.contract import Stage
from tasks.status import JobStatus, StageState, StageStatus

console = Console()
errors = Console(stderr=True)


def watch(states: Iterable[JobStatus]) -> JobStatus:
    """Follow a job with a bar per stage until it ends; plain lines when there is no terminal."""
    return _bars(states) if console.is_terminal else _lines(states)


def _bars(states: Iterable[JobStatus]) -> JobStatus:
    columns = (SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn())
    last = None
    with Progress(*columns, TextColumn("{task.fields[detail]}"), console=console) as progress:
        bars = {stage: progress.add_task(stage.value, total=None, start=False, detail="") for stage in Stage}
        for last in states:
            for stage in last.stages:
                _update(progress, bars[stage.stage], stage)
    return _ended(last)


def _update(progress: Progress, bar: TaskID, stage: StageStatus) -> None:
    if stage.state is StageState.PENDING:
        return
    progress.start_task(bar) if progress.tasks[bar].start_time is None else None
    found = stage.progress or {}
    total, step = found.get("total_steps"), found.get("step")
    if stage.state is StageState.DONE:
        progress.update(bar, total=1, completed=1, detail=detail(stage))
        progress.stop_task(bar)
    else:
        progress.update(bar, total=total, completed=step or 0, detail=detail(stage))


def _lines(states: Iterable[JobStatus]) -> JobStatus:
    last, shown = None, None
    for last in states:
        line = "  ".join(
            f"{s.stage}: {s.state} {detail(s)}".rstrip() for s in last.stages if s.state != "pending"
        )
        if line != shown:
            console.print(f"{last.state}  {line}", highlight=False, soft_wrap=True)
            shown = line
    return _ended(last)


def detail(stage: StageStatus) -> str:
    """Step, loss, speed and remaining time of a running stage, or the duration of one that is done."""
    if stage.state is StageState.DONE:
        return f"{stage.seconds:.1f} s" if stage.seconds is not None else ""
    found = stage.progress or {}
    if "step" not in found:
        return ""
    return (
        f"step {found['step']}/{found['total_steps']}  loss {found['loss']}  "
        f"{found['tokens_per_s']} tokens/s  {found['eta_s']:.0f} s left"
    )


def job_table(jobs: Iterable[JobStatus]) -> Table:
    table = Table("job", "state", "stage", "table", "submitted")
    for job in jobs:
        running = next((s.stage.value for s in job.stages if s.state is StageState.RUNNING), "")
        table.add_row(
            job.job_id, job.state.value, running, job.table, f"{job.submitted_at:%Y-%m-%d %H:%M:%S}"
        )
    return table


def row_table(rows: list[dict[str, Any]]) -> Table:
    columns = list(rows[0]) if rows else []
    table = Table(*columns)
    for row in rows:
        table.add_row(*(str(row.get(column)) for column in columns))
    return table


def _ended(status: JobStatus | None) -> JobStatus:
    if status is None:
        raise ValueError("a job that is watched has at least one state")
    return status
