"""Commands about jobs, from anywhere that reaches the broker and the store."""

from __future__ import annotations

import getpass
import tempfile
from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from nss_train import errors
from nss_train.contract import Stage
from nss_train.errors import ParameterError, Problem
from nss_train.extras import TRAIN
from tasks.cli import display, interrupt, subprograms
from tasks.cli.asking import Asking, Declined
from tasks.cli.commands import config as configs
from tasks.cli.csv_export import RowFormat, print_rows, write_rows
from tasks.cli.options import (
    AsJson,
    AsJsonLines,
    ConfigFile,
    JobId,
    Rows,
    Seed,
    Sets,
    TableSource,
    Yes,
    in_a_folder,
    with_submission_options,
)
from tasks.jobs.documents import JobState
from tasks.jobs.submission import SubmissionOptions

if TYPE_CHECKING:
    from tasks.client import Client
    from tasks.status import JobStatus


@with_submission_options
def submit(
    table: TableSource,
    config: ConfigFile = None,
    *,
    sets: Sets = None,
    options: SubmissionOptions,
    dataset_token_file: Annotated[
        Path | None, typer.Option(help="File with the token of guarantee.dataset.")
    ] = None,
    wait: Annotated[
        bool, typer.Option("--wait", help="Follow the job until it ends, as `watch` does.")
    ] = False,
    yes: Yes = False,
    as_json: AsJson = False,
) -> None:
    """Enqueue a job and print its id; --wait follows it."""
    client, given = _client(), configs.chosen(config, sets)
    with interrupt.saying("`nss-train list` shows whether the job is stored already"):
        job_id = client.submit(
            table=table,
            config=given,
            dataset_token=None if dataset_token_file is None else read_token(dataset_token_file),
            **dict(options),
        )
    warnings = client.foreseen_warnings(table=table, config=given)
    display.show_warnings(warnings)
    if not wait:
        display.show({"job_id": job_id, "warnings": warnings}, as_json=as_json, text=job_id)
        return
    with interrupt.saying(f"the job keeps running; `nss-train cancel {job_id}` ends it"):
        asking = Asking(yes=yes, as_json=as_json)
        last = follow(client, job_id, as_json=as_json, asking=asking, warned=warnings)
    if not as_json:
        display.show_status(last, as_json=False, warned=True)


def status(job_id: JobId, *, as_json: AsJson = False) -> None:
    """Show where a job stands."""
    client, job_id = client_and_id(job_id)
    display.show_status(client.status(job_id), as_json=as_json)


def watch(job_id: JobId, *, as_json: AsJsonLines = False) -> None:
    """Follow a job until it ends."""
    client, job_id = client_and_id(job_id)
    with interrupt.saying(f"the job keeps running; `nss-train cancel {job_id}` ends it"):
        last = follow(client, job_id, as_json=as_json)
    if not as_json:
        display.show_status(last, as_json=False, warned=True)


def cancel(
    job_id: JobId,
    *,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "cancelled from the command line",
    as_json: AsJson = False,
) -> None:
    """Stop a job."""
    client, job_id = client_and_id(job_id)
    state = client.cancel(job_id, reason=reason, requested_by=getpass.getuser())
    waits = state in (JobState.QUEUED, JobState.RUNNING)
    said = "cancellation is asked for" if waits else state.value
    display.show({"job_id": job_id, "state": state.value}, as_json=as_json, text=f"{job_id}: {said}")


def logs(
    job_id: JobId,
    *,
    stage: Annotated[Stage | None, typer.Option(help="The last one that printed anything.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The last one.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="All of a strictly private stage's, for its operator.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the end of what a stage's process printed."""
    client, job_id = client_and_id(job_id)
    text = client.logs(job_id, stage=stage, attempt=attempt, private=private)
    display.show({"job_id": job_id, "log": text}, as_json=as_json, text=text)


def fetch(
    job_id: JobId,
    out: Annotated[Path, typer.Argument(file_okay=False, help="Folder for the artifacts.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Write a job's artifacts into a folder."""
    client, job_id = client_and_id(job_id)
    folder = client.fetch(job_id, out)
    display.show({"job_id": job_id, "folder": str(folder)}, as_json=as_json, text=str(folder))


def sample(
    job_id: JobId,
    *,
    rows: Rows = 10,
    seed: Seed = None,
    format_: Annotated[
        RowFormat,
        typer.Option("--format", help="How the rows are printed; csv and jsonl are the rows alone."),
    ] = RowFormat.TABLE,
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, callback=in_a_folder, help="Write the rows to this CSV file as well."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Print synthetic rows from a job's adapter."""
    subprograms.require_extras(TRAIN)
    client, job_id = client_and_id(job_id)
    with tempfile.TemporaryDirectory() as folder, display.stderr.status(f"sampling {rows} rows …"):
        found = client.fetch(job_id, Path(folder) / "run")
        preview = subprograms.sample(found, client.base_model(job_id), rows=rows, seed=seed)
    if out is not None:
        write_rows(out, preview["rows"])
    if as_json or format_ is RowFormat.TABLE:
        display.show_preview(preview, as_json=as_json)
    else:
        print_rows(preview["rows"], format_)
        display.tell_validity(preview, display.stderr)


def list_jobs(*, as_json: AsJson = False) -> None:
    """List all jobs in the store."""
    jobs = list(_client().list())
    if as_json:
        display.show({"jobs": [job.model_dump(mode="json") for job in jobs]}, as_json=True)
    else:
        display.console.print(display.job_table(jobs))


def client_and_id(beginning: str) -> tuple[Client, str]:
    """Return a client and the whole id of the job: each command takes the beginning of one as well."""
    client = _client()
    return client, client.find(beginning)


def _client() -> Client:
    from tasks.client import Client

    return Client()


def follow(
    client: Client,
    job_id: str,
    *,
    as_json: bool,
    asking: Asking | None = None,
    warned: Collection[str] = (),
) -> JobStatus:
    """Follow a job and return its status at the end; end the command with the error of one that failed.

    As JSON Lines the last status has the error. A job that the person declines is cancelled. ``warned`` are
    warnings that were shown already.
    """
    if not as_json:
        display.console.print(f"job {job_id}", highlight=False)
    try:
        states = client.watch(job_id)
        last = display.stream(states, asking) if as_json else display.watch(states, asking, warned=warned)
    except Declined:
        became = interrupt.cancel(client, job_id)
        raise interrupt.Interrupted(f"not wanted; job {job_id} is {became}") from None
    if last.error is not None:
        error = errors.from_json(last.error)
        raise typer.Exit(error.exit_code) if as_json else error
    return last


def read_token(file: Path) -> str:
    """Return the token in a file. It is never an argument, which every user of the machine could read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(field="dataset_token_file", value=str(file), remedy=f"cannot be read: {error}")
        raise ParameterError("No token.", [problem]) from error
