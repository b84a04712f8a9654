"""Add a base model to this machine's models: ``python -m nss_train.model --help``."""

from __future__ import annotations

import sys
from pathlib import Path

from nss_train import command
from nss_train.model.local.adding import add_model
from nss_train.model.local.smollm2 import NAME, add_smollm2

SMOLLM2 = "smollm2"


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.model", description=__doc__)
    parser.add_argument("source", help=f"a safetensors folder, OWNER/NAME of the hub, or {SMOLLM2}")
    parser.add_argument("--models", type=Path, required=True, help="folder of this machine's models")
    parser.add_argument("--link", action="store_true", help="lead to the folder instead of copying it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    return command.run(
        lambda: _add(given.source, given.models, link=given.link), show=_show, as_json=given.json
    )


def _add(source: str, models_dir: Path, *, link: bool) -> dict[str, str]:
    if source == SMOLLM2:
        return {"model": NAME, "folder": str(add_smollm2(models_dir))}
    folder = add_model(source, models_dir, link=link)
    return {"model": folder.name, "folder": str(folder)}


def _show(found: dict[str, str]) -> None:
    sys.stdout.write(f"{found['folder']}\n")


if __name__ == "__main__":
    sys.exit(main())
