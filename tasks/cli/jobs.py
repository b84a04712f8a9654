"""Commands about jobs, from anywhere that reaches the broker and the store."""

from __future__ import annotations

import getpass
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from nss_train import errors
from nss_train.contract import Stage
from nss_train.errors import ParameterError, Problem
from tasks import library
from tasks.cli import display
from tasks.cli.options import AsJson, ConfigFile, Family, Fsdp, Ranks, Rows, Seed
from tasks.job import DEFAULT_PRIORITY, DEFAULT_TENANT, JobState
from tasks.settings import Settings
from tasks.spreadsheet import write_rows

if TYPE_CHECKING:
    from tasks.client import Client
    from tasks.status import JobStatus


def submit(
    table: str,
    config: ConfigFile = None,
    *,
    key: Annotated[str | None, typer.Option(help="Idempotency key: the same key is the same job.")] = None,
    seed: Seed = None,
    family: Family = "",
    ranks: Ranks = 0,
    fsdp: Fsdp = False,
    priority: Annotated[int, typer.Option(help="0 begins first, 9 last.")] = DEFAULT_PRIORITY,
    tenant: Annotated[str, typer.Option(help="Shares the workers with others.")] = DEFAULT_TENANT,
    webhook: Annotated[str | None, typer.Option(help="URL that is told how the job ends.")] = None,
    webhook_progress: Annotated[
        bool, typer.Option("--webhook-progress", help="The webhook is told of each stage, too.")
    ] = False,
    dataset_token_file: Annotated[
        Path | None, typer.Option(help="File with the token of guarantee.dataset.")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Enqueue a job and print its id."""
    source = config if config is not None else default_config()
    job_id = _client().submit(
        table=table,
        config=source,
        idempotency_key=key,
        seed=seed,
        family=family,
        ranks=ranks,
        fsdp=fsdp,
        priority=priority,
        tenant=tenant,
        webhook=webhook,
        webhook_progress=webhook_progress,
        dataset_token=None if dataset_token_file is None else read_token(dataset_token_file),
    )
    display.show({"job_id": job_id}, as_json=as_json, text=job_id)


def status(job_id: str, *, as_json: AsJson = False) -> None:
    """Where a job stands."""
    display.show_status(_client().status(job_id), as_json=as_json)


def watch(job_id: str, *, as_json: AsJson = False) -> None:
    """Follow a job until it ends."""
    display.show_status(follow(_client(), job_id, as_json=as_json), as_json=as_json, warned=True)


def cancel(
    job_id: str,
    *,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "cancelled from the command line",
    as_json: AsJson = False,
) -> None:
    """Stop a job."""
    state = _client().cancel(job_id, reason=reason, requested_by=getpass.getuser())
    waits = state in (JobState.QUEUED, JobState.RUNNING)
    said = "cancellation is asked for" if waits else state.value
    display.show({"job_id": job_id, "state": state.value}, as_json=as_json, text=f"{job_id}: {said}")


def logs(
    job_id: str,
    *,
    stage: Annotated[Stage | None, typer.Option(help="The last one that printed anything.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The last one.")] = None,
    private: Annotated[
        bool, typer.Option("--private", help="All of a strictly private stage's, for its operator.")
    ] = False,
    as_json: AsJson = False,
) -> None:
    """Print the end of what a stage's process printed."""
    text = _client().logs(job_id, stage=stage, attempt=attempt, private=private)
    display.show({"job_id": job_id, "log": text}, as_json=as_json, text=text)


def fetch(job_id: str, out: Path, *, as_json: AsJson = False) -> None:
    """Write a job's artifacts into a folder."""
    folder = _client().fetch(job_id, out)
    display.show({"job_id": job_id, "folder": str(folder)}, as_json=as_json, text=str(folder))


def sample(
    job_id: str,
    *,
    rows: Rows = 10,
    seed: Seed = None,
    out: Annotated[Path | None, typer.Option(help="Write the rows to this CSV file as well.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print synthetic rows from a job's adapter."""
    client = _client()
    with tempfile.TemporaryDirectory() as folder:
        found = client.fetch(job_id, Path(folder) / "run")
        preview = library.sample(found, client.base_model(job_id), rows=rows, seed=seed)
    if out is not None:
        write_rows(out, preview["rows"])
    display.show_preview(preview, as_json=as_json)


def list_jobs(*, as_json: AsJson = False) -> None:
    """All jobs in the store."""
    jobs = list(_client().list())
    if as_json:
        display.show({"jobs": [job.model_dump(mode="json") for job in jobs]}, as_json=True)
    else:
        display.console.print(display.job_table(jobs))


def _client() -> Client:
    from tasks.client import Client

    return Client()


def follow(client: Client, job_id: str, *, as_json: bool) -> JobStatus:
    """The status of a job at its end, shown on the way; raises the error of one that failed."""
    if as_json:
        *_, last = client.watch(job_id)
    else:
        display.console.print(f"job {job_id}", highlight=False)
        last = display.watch(client.watch(job_id))
    if last.error is not None:
        raise errors.from_json(last.error)
    return last


def read_token(file: Path) -> str:
    """The token in a file. It is never an argument, which every user of the machine could read."""
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problem = Problem(field="dataset_token_file", value=str(file), remedy=f"cannot be read: {error}")
        raise ParameterError("No token.", [problem]) from error


def default_config() -> dict[str, Any]:
    """Without a config the only model of this machine is trained."""
    names = library.models(Settings())
    return {"training": {"pretrained_model": names[0]}} if len(names) == 1 else {}
