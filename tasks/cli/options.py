"""Arguments and options that several commands have."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import Parameter, Signature, signature
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic.fields import FieldInfo

from nss_train.formats import FORMATS
from tasks.jobs.submission import SubmissionOptions

AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object.")]
AsJsonLines = Annotated[
    bool, typer.Option("--json", help="Print JSON Lines: each new status; the last line is how it ended.")
]
TableSource = Annotated[
    str,
    typer.Argument(
        help=f"Path of a table ({', '.join(FORMATS)}), or an s3://bucket/key below a prefix that the"
        " operator allows."
    ),
]
LocalTable = Annotated[str, typer.Argument(help=f"Path of a table ({', '.join(FORMATS)}).")]
JobId = Annotated[str, typer.Argument(help="Id of a job, or as much of its beginning as no other has.")]
ConfigFile = Annotated[
    Path | None,
    typer.Option(help="NSS config, YAML or JSON (`nss-train config init`); NSS's defaults without it."),
]
Sets = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="FIELD=VALUE",
        help="Set one field of the config, such as training.lora_r=16; again for others."
        " NSS's own --training__lora_r 16 means the same.",
    ),
]


def in_a_folder(path: Path | None) -> Path | None:
    """Refuse a file whose folder is missing, before the work whose result it would hold."""
    if path is not None and not path.parent.is_dir():
        raise typer.BadParameter(f"there is no folder {path.parent}.")
    return path


def described(name: str) -> str | None:
    """Return what an option of a submission is for."""
    return SubmissionOptions.model_fields[name].description


Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask nothing when the job teaches nothing, or takes hours.")
]
Rows = Annotated[int, typer.Option(min=1, help="Rows to sample.")]
Ranks = Annotated[int, typer.Option(min=0, help=described("ranks"))]
Key = Annotated[str | None, typer.Option("--key", help=described("idempotency_key"))]
Family = Annotated[str, typer.Option(help=described("family"))]
Seed = Annotated[int | None, typer.Option(help=described("seed"))]

_WORDED: dict[str, Any] = {"idempotency_key": Key, "ranks": Ranks}
"""Options of a submission that are more on the command line than name, type and help."""


def with_submission_options(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command an option for each of a submission's, in the place of its parameter ``options``."""
    parameters = dict(signature(command, eval_str=True).parameters)
    given = list(parameters.values())
    where = given.index(parameters.pop("options"))
    given[where : where + 1] = [
        _option(name, field) for name, field in SubmissionOptions.model_fields.items()
    ]

    @wraps(command)
    def call(**values: Any) -> None:
        options = {name: values.pop(name) for name in SubmissionOptions.model_fields}
        command(options=SubmissionOptions.model_construct(**options), **values)

    call.__signature__ = Signature(given)  # type: ignore[attr-defined]
    return call


def _option(name: str, field: FieldInfo) -> Parameter:
    flag = [f"--{name.replace('_', '-')}"] if field.annotation is bool else []  # without its --no- form
    plain = Annotated[field.annotation, typer.Option(*flag, help=field.description)]  # type: ignore[name-defined]
    kind = _WORDED.get(name, plain)
    return Parameter(name, Parameter.KEYWORD_ONLY, default=field.default, annotation=kind)
