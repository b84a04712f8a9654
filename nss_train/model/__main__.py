"""Add a base model to this machine's models, or verify one: ``python -m nss_train.model --help``."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from nss_train import command
from nss_train.errors import DataError, Problem
from nss_train.model.local.adding import add_model
from nss_train.model.local.known import Memory
from nss_train.model.local.smollm2 import NAME, add_smollm2
from nss_train.model.local.verifying import Verified, get_to_know, verify
from nss_train.text.counted import counted

SMOLLM2 = "smollm2"


def main() -> int:
    parser = command.Parser(prog="python -m nss_train.model", description=__doc__)
    parser.add_argument("source", help=f"a safetensors folder, OWNER/NAME of the hub, or {SMOLLM2}")
    parser.add_argument("--models", type=Path, required=True, help="folder of this machine's models")
    parser.add_argument("--known", type=Path, required=True, help="folder of what is known of them")
    parser.add_argument("--verify", action="store_true", help="hash the files of a model that is there again")
    parser.add_argument("--link", action="store_true", help="lead to the folder instead of copying it")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    given = parser.parse_args()
    memory = Memory(given.known)
    if given.verify:
        return command.run(
            lambda: _verify(given.source, given.models, memory), show=_show_verified, as_json=given.json
        )
    return command.run(
        lambda: _add(given.source, given.models, memory, link=given.link), show=_show, as_json=given.json
    )


def _add(source: str, models_dir: Path, memory: Memory, *, link: bool) -> dict[str, Any]:
    is_smollm2 = source == SMOLLM2
    folder = add_smollm2(models_dir) if is_smollm2 else add_model(source, models_dir, link=link)
    get_to_know(folder, memory)
    return {"model": NAME if is_smollm2 else folder.name, "folder": str(folder)}


def _verify(name: str, models_dir: Path, memory: Memory) -> dict[str, Any]:
    found = verify(models_dir / name, memory)
    if found.differs:
        raise DataError(f"{name} is not what it was.", list(_differences(found)))
    return {"model": name, "files": found.files, "unknown": list(found.unknown)}


def _differences(found: Verified) -> Iterator[Problem]:
    remedies = {
        "was changed; jobs from now on train on it as another model": found.changed,
        "has other bytes, but the times and the size that it had: check the disk, and add the model again": (
            found.damaged
        ),
        "is gone; jobs from now on train without it, as on another model": found.gone,
    }
    for remedy, names in remedies.items():
        yield from (Problem(field=name, value=None, remedy=remedy) for name in names)


def _show_verified(found: dict[str, Any]) -> None:
    unknown = f"; {len(found['unknown'])} were not known before" if found["unknown"] else ", as before"
    sys.stdout.write(f"{found['model']}: {counted(found['files'], 'file')}{unknown}\n")


def _show(found: dict[str, Any]) -> None:
    sys.stdout.write(f"{found['folder']}\n")


if __name__ == "__main__":
    sys.exit(main())
