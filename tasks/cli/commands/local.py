"""Commands for one machine: everything started here, and training examples."""

from __future__ import annotations

import shlex
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Literal

import typer

from nss_train.config import parse_config
from nss_train.errors import NotInstalled
from nss_train.extras import FLOWER, LOCAL, TRAIN, missing, needed_by
from tasks.cli import display, interrupt, subprograms
from tasks.cli.asking import Asking
from tasks.cli.commands import config as configs
from tasks.cli.commands.jobs import follow
from tasks.cli.options import (
    AsJson,
    AsJsonLines,
    ConfigFile,
    Family,
    LocalTable,
    Rows,
    Seed,
    Sets,
    Yes,
    in_a_folder,
)
from tasks.jobs.submission import SEEDS
from tasks.permissions import private_file
from tasks.settings import Settings


def run(
    table: LocalTable,
    config: ConfigFile = None,
    *,
    sets: Sets = None,
    s3: Annotated[bool, typer.Option("--s3", help="Use the S3 server instead of a folder.")] = False,
    rows: Rows = 10,
    out: Annotated[Path | None, typer.Option(file_okay=False, help="Folder for the artifacts.")] = None,
    seed: Seed = None,
    family: Family = "",
    yes: Yes = False,
    as_json: AsJsonLines = False,
) -> None:
    """Train on a table with everything started on this machine, and print synthetic rows.

    Ctrl-C cancels the job and takes everything down.
    """
    from tasks.client import Client
    from tasks.jobs.submission import Submission
    from tasks.local.stack import stack
    from tasks.submission.foreseen import foreseen
    from tasks.submission.submit import check_request

    source = configs.chosen(config, sets)
    submission = Submission.unchecked(table=table, config=source, seed=seed, family=family)
    # Where packages are missing, that is said first: without them no model can be trained anyway.
    complete = {TRAIN, LOCAL}.isdisjoint(missing())
    checked = check_request(submission, models=Settings().model_policy if complete else None)
    subprograms.require_extras(*needed_by(checked), LOCAL)
    warnings = list(foreseen(Path(table), checked, source))
    display.show_warnings(warnings)
    if not as_json:
        display.console.print("starting broker, store and workers …")
    down = interrupt.saying("everything is taken down")
    with down, stack(Settings(), s3=s3) as settings:
        client = Client(settings)
        job_id = client.submit(table=table, config=source, seed=seed, family=family)
        with interrupt.cancelling(client, job_id):
            asking = Asking(yes=yes, as_json=as_json)
            ended = follow(client, job_id, as_json=as_json, asking=asking, warned=warnings)
        folder = client.fetch(job_id, out or settings.home / "runs" / job_id)
        base = client.base_model(job_id)
    with interrupt.saying(f"the job has succeeded, its artifacts are in {folder}"):
        preview = subprograms.sample(folder, base, rows=rows, seed=seed)
    display.report_run(ended, folder, preview, as_json=as_json)


def up(
    *,
    s3: Annotated[bool, typer.Option("--s3", help="Use the S3 server instead of a folder.")] = False,
    as_json: AsJson = False,
) -> None:
    """Keep broker, store, workers and, where it is installed, Flower running until Ctrl-C."""
    subprograms.require_extras(TRAIN, LOCAL)
    from tasks.local.stack import stack

    down = interrupt.saying("everything is taken down")
    with down, stack(Settings(), s3=s3) as settings, _dashboard(settings) as dashboard:
        environment = settings.home / "environment"
        values = settings.as_environment().items()
        lines = [f"export {name}={shlex.quote(value)}" for name, value in values]
        with private_file(environment, "wb") as file:
            file.write(("\n".join(lines) + "\n").encode())
        try:
            display.show(dashboard | {"environment": str(environment)}, as_json=as_json)
            if not as_json:
                display.console.print(f"in another shell: source {environment}; nss-train submit table.csv")
            while True:
                signal.pause()
        finally:
            environment.unlink()


@contextmanager
def _dashboard(settings: Settings) -> Iterator[dict[str, str]]:
    """Yield Flower's address, user and password; or that it is not installed."""
    from tasks.local.stack import flower

    try:
        subprograms.require_extras(FLOWER)
    except NotInstalled as error:
        yield {"flower": str(error)}
        return
    with flower(settings) as dashboard:
        yield {"flower": dashboard.url, "user": "admin", "password": dashboard.password}


def estimate(
    table: LocalTable,
    config: ConfigFile = None,
    *,
    sets: Sets = None,
    family: Family = "",
    as_json: AsJson = False,
) -> None:
    """Estimate what a training takes: steps, tokens, memory, time on this machine; ε(t) of a private one.

    Nothing is trained. The speed of this machine is measured on a few of the model's layers, and remembered.
    """
    source = configs.chosen(config, sets)
    subprograms.require_extras(*needed_by(parse_config(source)))
    settings = Settings()
    options = ["--models", str(settings.models_dir), "--paces", str(settings.paces_dir), "--family", family]
    options += ["--allow-hub"] if settings.allow_hub else []
    options += ["--json"] if as_json else []
    with configs.written(source) as file:
        code = subprograms.run("nss_train.cost", "--config", str(file), *options, "--", table)
    raise typer.Exit(code)


def examples(
    table: LocalTable,
    model: Annotated[Path, typer.Option(help="Folder of the base model.")],
    config: ConfigFile = None,
    *,
    sets: Sets = None,
    seed: Annotated[int, typer.Option(min=0, max=SEEDS - 1, help="Repeats a run.")] = 1234,
    entry: Annotated[
        Literal["backend", "process_data"],
        typer.Option(help="backend: the table is the training split; process_data: holdout first."),
    ] = "backend",
    out: Annotated[
        Path | None,
        typer.Option(dir_okay=False, callback=in_a_folder, help="Write all examples to this .json.gz file."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Show the first training examples that a table becomes."""
    subprograms.require_extras(TRAIN)
    options = ["--model", str(model), "--seed", str(seed), "--entry", entry]
    options += ["--out", str(out)] if out else []
    options += ["--json"] if as_json else []
    with configs.as_file(config, sets) as file:
        options += ["--config", str(file)] if file else []
        code = subprograms.run("nss_train.data", *options, "--", table)
    raise typer.Exit(code)
