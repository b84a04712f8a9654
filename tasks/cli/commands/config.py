"""``nss-train config``: write, show and check a config; and ``--set`` for the other commands."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from string import Template
from typing import Annotated, Any

import typer
import yaml

from nss_train.config import SafeSynthesizerParameters, parse_config, read_config
from nss_train.config.ignored import ignored
from nss_train.config.overrides import with_overrides
from nss_train.config.support import unsupported_training
from nss_train.errors import ParameterError, Problem
from nss_train.model_names import models_in
from tasks.cli import display
from tasks.cli.nss_options import ConfigCommand
from tasks.cli.options import AsJson, Sets
from tasks.settings import Settings

app = typer.Typer(no_args_is_help=True, help="The config of a job: write, show or check one.")

TEMPLATE = Template(
    """\
# What a job trains, and how. Every line shows its default: leave out what you do not change.
# `nss-train config show` lists all fields, `nss-train config validate` checks this file.

training:
  pretrained_model: $model  # a name of `nss-train model list`, or a folder
  num_input_records_to_sample: auto  # records that are trained, repeated ones included: how long it trains
  learning_rate: auto
  batch_size: 1
  gradient_accumulation_steps: 8  # so many batches make one step
  lora_r: 32  # the adapter's rank: more learns more, and takes more memory
  quantize_model: false  # with true the base model takes a half or a quarter of the memory

data:
  group_training_examples_by: null  # a column: its records are learned together, such as a patient's visits
  order_training_examples_by: null  # a column: the order within a group
  holdout: 0.05  # share, or number, of records that are not trained
  # random_state: 7  # who is held out; drawn when left out

# reading: {types: faithful}  # cells as they are written; single columns: `columns: {zip: text, photo: drop}`

privacy:
  dp_enabled: false  # with true the result tells little of any single record
  epsilon: 8.0  # how little: less is more private, and less like the table
  delta: auto

replace_pii: null  # only training is done here; replace personal data before
"""
)


@app.command("init", epilog="Example: nss-train config init job.yaml")
def init(
    path: Annotated[Path, typer.Argument(help="File to write; there must be none yet.")] = Path(
        "config.yaml"
    ),
    *,
    as_json: AsJson = False,
) -> None:
    """Write a config with what people change, each with its default and what it means."""
    try:
        with path.open("x", encoding="utf-8") as file:
            file.write(template())
    except OSError as error:
        problem = Problem(field="path", value=str(path), remedy=f"cannot be written: {error.strerror}")
        raise ParameterError("No config is written.", [problem]) from error
    display.show({"config": str(path)}, as_json=as_json, text=str(path))


@app.command(
    "show", cls=ConfigCommand, epilog="Example: nss-train config show job.yaml --set training.lora_r=16"
)
def show(
    path: Annotated[Path | None, typer.Argument(help="NSS config, YAML or JSON.")] = None,
    *,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Print all fields of a config, defaults included; ``auto`` stays until a table is there."""
    config = parse_config(chosen(path, sets)).model_dump(mode="json")
    display.show(
        config, as_json=as_json, text=yaml.safe_dump(config, sort_keys=False, allow_unicode=True).rstrip()
    )


@app.command("validate", cls=ConfigCommand, epilog="Example: nss-train config validate job.yaml")
def validate(
    path: Annotated[Path, typer.Argument(help="NSS config, YAML or JSON.")],
    *,
    sets: Sets = None,
    as_json: AsJson = False,
) -> None:
    """Check a config, also for what this version cannot train; exit code 2 with every problem."""
    given = chosen(path, sets)
    display.show_warnings(list(ignored(checked(given), given)))
    display.show({"config": str(path), "valid": True}, as_json=as_json, text=f"{path} is valid")


def checked(given: Mapping[str, object]) -> SafeSynthesizerParameters:
    """Return the config as a submission checks it."""
    config = parse_config(given)
    problems = list(unsupported_training(config))
    if problems:
        raise ParameterError("The job asks for what this version cannot do.", problems)
    return config


def template() -> str:
    """Return the config that ``init`` writes; it names this machine's model if there is only one."""
    given = parse_config(default_config())
    return TEMPLATE.substitute(model=given.training.pretrained_model)


def chosen(path: Path | None, sets: Sequence[str] | None) -> Mapping[str, Any]:
    """Return what the command line says of the config, unchecked."""
    given = default_config() if path is None else read_config(path)
    return with_overrides(given, sets or ())


@contextmanager
def as_file(path: Path | None, sets: Sequence[str] | None) -> Iterator[Path | None]:
    """Yield the config as a file for a program of the library; ``None`` for NSS's defaults."""
    if not sets:
        yield path
        return
    with written(with_overrides({} if path is None else read_config(path), sets)) as file:
        yield file


@contextmanager
def written(config: Mapping[str, object]) -> Iterator[Path]:
    """Yield a config as a file for a program of the library."""
    with tempfile.NamedTemporaryFile("w", suffix=".yaml", encoding="utf-8") as file:
        yaml.safe_dump(dict(config), file)
        file.flush()
        yield Path(file.name)


def default_config() -> dict[str, Any]:
    """Return the config of a command without one: the only model of this machine is trained."""
    names = models_in(Settings().models_dir)
    return {"training": {"pretrained_model": names[0]}} if len(names) == 1 else {}
