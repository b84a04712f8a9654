"""The output of the command line."""

from __future__ import annotations

import json
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Column, Table
from rich.text import Text

from nss_train import errors
from nss_train.contract import Stage
from nss_train.errors import NSSTrainError
from nss_train.text.durations import duration
from tasks.scheduling.admission import Place
from tasks.status import JobStatus, StageState, StageStatus

console = Console()
stderr = Console(stderr=True)


class Asking(Protocol):
    """The questions about a job that a person waits for."""

    def doubts(self, found: JobStatus) -> Iterable[str]:
        """Return what the person should think about now."""
        ...

    def settle(self, doubts: Sequence[str]) -> None:
        """Ask, or warn."""
        ...


def plain(text: object) -> Text:
    """Return text as it is: neither rich's markup nor codes that steer a terminal, wherever it came from."""
    return Text("".join(map(_shown, str(text))))


def _shown(char: str) -> str:
    return char if char.isprintable() or char in "\n\t" else char.encode("unicode_escape").decode()


def watch(
    states: Iterable[JobStatus], asking: Asking | None = None, *, warned: Collection[str] = ()
) -> JobStatus:
    """Follow a job with a bar per stage until it ends; plain lines when there is no terminal.

    How the table was read, warnings and cost are shown once, when they are known, and no warning that the
    person has seen already (``warned``). Raises what ``asking`` does.
    """
    told = _told(states, set(warned))
    return _bars(told, asking) if console.is_terminal else _lines(told, asking)


def _told(states: Iterable[JobStatus], warned: set[str]) -> Iterator[JobStatus]:
    """Yield the states, and show what is known of the job once."""
    reading = costs = False
    for found in states:
        if found.read_as is not None and not reading:
            show_reading(found)
            reading = True
        show_warnings([warning for warning in found.warnings if warning not in warned])
        warned.update(found.warnings)
        if found.cost is not None and not costs and (found.cost.seconds is not None or found.is_training):
            show_cost(found)
            costs = True
        yield found


def _bars(states: Iterable[JobStatus], asking: Asking | None) -> JobStatus:
    columns = (SpinnerColumn(), TextColumn("{task.description:<14}"), BarColumn(), TimeElapsedColumn())
    last = None
    with Progress(*columns, TextColumn("{task.fields[detail]}"), console=console) as progress:
        bars = {stage: progress.add_task(stage.value, total=None, start=False, detail="") for stage in Stage}
        for last in states:
            for stage in last.stages:
                _update(progress, bars[stage.stage], stage)
            if asking is not None and (doubts := [*asking.doubts(last)]):
                progress.stop()
                asking.settle(doubts)
                progress.start()
    return _ended(last)


def _update(progress: Progress, bar: TaskID, stage: StageStatus) -> None:
    if stage.state is StageState.PENDING:
        return
    progress.start_task(bar) if progress.tasks[bar].start_time is None else None
    found = stage.progress or {}
    total, step = found.get("total_steps"), found.get("step")
    if stage.state is StageState.STOPPED:
        progress.stop_task(bar)
    elif stage.state is StageState.DONE:
        progress.update(bar, total=1, completed=1, detail=detail(stage))
        progress.stop_task(bar)
    else:
        progress.update(bar, total=total, completed=step or 0, detail=detail(stage))


def stream(states: Iterable[JobStatus], asking: Asking | None = None) -> JobStatus:
    """Print each status as a line of JSON, at once; the last one is how the job ended."""
    last = None
    for last in states:
        settle(last, asking)
        show(last.model_dump(mode="json"), as_json=True)
        sys.stdout.flush()
    return _ended(last)


def settle(found: JobStatus, asking: Asking | None) -> None:
    """Ask, or warn, where there is something to think about."""
    if asking is not None and (doubts := [*asking.doubts(found)]):
        asking.settle(doubts)


def _lines(states: Iterable[JobStatus], asking: Asking | None) -> JobStatus:
    last, shown = None, None
    for last in states:
        settle(last, asking)
        line = "  ".join(
            f"{s.stage}: {s.state} {detail(s)}".rstrip() for s in last.stages if s.state != "pending"
        )
        if line != shown:
            console.print(f"{last.state}  {line}", highlight=False, soft_wrap=True)
            shown = line
    return _ended(last)


_TOLD = {
    "loss": "loss {}",
    "epsilon": "ε ≤ {:.3f}",
    "tokens_per_s": "{} tokens/s",
    "units_per_s": "{} units/s",
}
"""Figures of a step; a private training shows ε and no loss, and the first event has none of them."""


def detail(stage: StageStatus) -> str:
    """Return step, loss, speed and remaining time of a running stage, or the duration of a finished one."""
    if stage.state is StageState.DONE:
        return duration(stage.seconds) if stage.seconds is not None else ""
    found = stage.progress or {}
    if "step" not in found:
        return ""
    told = [form.format(found[name]) for name, form in _TOLD.items() if found.get(name) is not None]
    if found.get("eta_s") is not None:
        told.append(f"{duration(found['eta_s'])} left")
    return "  ".join([f"step {found['step']}/{found['total_steps']}", *told])


def place(found: Place) -> str:
    """Return in words how many jobs are ahead of one that waits, and when it may begin."""
    when = "" if found.starts_in_s is None else f", begins in about {duration(found.starts_in_s)}"
    return f"waits for its turn: {found.ahead} ahead{when}"


def job_table(jobs: Iterable[JobStatus]) -> Table:
    """Return a table of jobs with their ids whole, whatever the width: they are there to be copied."""
    table = Table(
        Column("job", no_wrap=True), "state", "stage", Column("table", overflow="fold"), "submitted"
    )
    for job in jobs:
        running = next((s.stage.value for s in job.stages if s.state is StageState.RUNNING), "")
        submitted = f"{job.submitted_at:%Y-%m-%d %H:%M:%S}"
        table.add_row(job.job_id, job.state.value, running, plain(job.table), submitted)
    return table


def row_table(rows: list[dict[str, Any]]) -> Table:
    columns = list(rows[0]) if rows else []
    table = Table()
    for column in columns:
        table.add_column(plain(column))
    for row in rows:
        table.add_row(*(plain(row.get(column)) for column in columns))
    return table


def _ended(status: JobStatus | None) -> JobStatus:
    if status is None:
        raise ValueError("a job that is watched has at least one state")
    return status


def show_status(found: JobStatus, *, as_json: bool, warned: bool = False) -> None:
    """Show a status; ``warned`` says that reading, cost and warnings were shown on the way."""
    if as_json:
        show(found.model_dump(mode="json"), as_json=True)
        return
    console.print(plain(f"{found.job_id}: {found.state}{f', {found.reason}' if found.reason else ''}"))
    if found.place is not None:
        console.print(f"  {place(found.place)}", highlight=False)
    for stage in found.stages:
        console.print(f"  {stage.stage:<13} {stage.state:<8} {detail(stage)}", highlight=False)
    if not warned:
        show_reading(found)
        show_cost(found)
        show_warnings(found.warnings)
    if found.error is not None:
        console.print(plain(errors.from_json(found.error)))


def show_reading(found: JobStatus) -> None:
    """Show how the table was read, once it was, and unless that is private."""
    if found.read_as is not None:
        console.print(plain(f"read as: {found.read_as}"), soft_wrap=True)


def show_cost(found: JobStatus) -> None:
    """Show what the training takes, as far as it is known."""
    if found.cost is not None:
        console.print(plain(f"training: {found.cost}"), soft_wrap=True)


def show_warnings(warnings: Sequence[str]) -> None:
    """Show warnings and how many they are beside the output, where they do not end in a pipe."""
    for warning in warnings:
        stderr.print(plain(f"warning: {warning}"), soft_wrap=True)
    if len(warnings) > 1:
        stderr.print(f"{len(warnings)} warnings", highlight=False)


def show_preview(preview: dict[str, Any], *, as_json: bool) -> None:
    if as_json:
        show(preview, as_json=True)
        return
    if preview["rows"]:
        console.print(row_table(preview["rows"]))
    tell_validity(preview, console)


def tell_validity(preview: dict[str, Any], to: Console) -> None:
    """Show how many sampled records are valid, and each reason of the others with its first message."""
    total = preview["valid"] + preview["invalid"]
    if not total:
        to.print("no record was sampled: the model does not write records yet. Train it for more steps")
        return
    share = f"{100 * preview['valid'] / total:.0f}%"
    to.print(f"{preview['valid']} of {total} sampled records are valid ({share})", highlight=False)
    for reason, count in preview["reasons"].items():
        to.print(plain(f"  {count} × {reason}: {preview['examples'][reason]}"), soft_wrap=True)


def report_run(found: JobStatus, folder: Path, preview: dict[str, Any], *, as_json: bool) -> None:
    seconds = {stage.stage.value: stage.seconds for stage in found.stages}
    speed = found.stages[2].figures.get("tokens_per_s")
    if not as_json:
        show_preview(preview, as_json=False)
        spent = ", ".join(f"{name} {duration(value)}" for name, value in seconds.items() if value is not None)
        console.print(f"{spent}; {speed} tokens/s\nartifacts: {folder}", highlight=False, soft_wrap=True)
        return
    document = {
        "job_id": found.job_id,
        "outcome": found.state.value,
        "seconds": seconds,
        "tokens_per_s": speed,
        "warnings": list(found.warnings),
    }
    document |= {"rows_sampled": preview["valid"] + preview["invalid"], "rows_valid": preview["valid"]}
    show(document | {"folder": str(folder), "rows": preview["rows"]}, as_json=True)


def show(document: dict[str, Any], *, as_json: bool, text: str | None = None) -> None:
    if as_json:
        sys.stdout.write(json.dumps(document) + "\n")
    elif text is not None:
        console.print(plain(text), soft_wrap=True)
    else:
        for name, value in document.items():
            console.print(plain(f"{name}: {value}"), soft_wrap=True)


def fail(error: NSSTrainError, *, as_json: bool) -> None:
    if as_json:
        sys.stdout.write(json.dumps({"error": errors.to_json(error)}) + "\n")
    else:
        stderr.print(plain(error), soft_wrap=True)
