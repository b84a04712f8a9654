"""Options that several commands have."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

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
