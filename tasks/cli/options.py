"""Arguments and options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from nss_train.formats import FORMATS

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


Yes = Annotated[
    bool, typer.Option("--yes", "-y", help="Ask nothing when the job teaches nothing, or takes hours.")
]
Rows = Annotated[int, typer.Option(min=1, help="Rows to sample.")]
Family = Annotated[
    str, typer.Option(help="Family of the base model, if neither name nor config.json tells it.")
]
Ranks = Annotated[
    int, typer.Option(min=0, help="Processes that train together; 0: as the worker has devices.")
]
Fsdp = Annotated[bool, typer.Option("--fsdp", help="The ranks share the base model's weights.")]
Seed = Annotated[int | None, typer.Option(help="Repeats a run; drawn when left out.")]
