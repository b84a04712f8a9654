"""Adding a base model from a folder or the hub to this machine's models."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from nss_train.contract import ModelPolicy
from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.model.local.copying import copy_files
from nss_train.model.local.source import ModelSource, find_model

_OF_THE_HUB = re.compile(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*")


def add_model(source: str, models_dir: Path, *, link: bool = False) -> Path:
    """Copy a model, or link to its folder, after the checks that a job makes; return its new folder.

    Raises :class:`ParameterError` with every reason against it, and :class:`InfrastructureError` when the hub
    is needed but unreachable.
    """
    is_folder = Path(source).is_dir()
    if not is_folder and _OF_THE_HUB.fullmatch(source) is None:
        raise _refused(source, "no such folder; give a safetensors folder, OWNER/NAME of the hub, or smollm2")
    if link and not is_folder:
        raise _refused(source, "only a folder of this machine can be linked to; leave out --link")
    found = _found(source, models_dir, is_folder=is_folder)
    target = models_dir / (Path(source).resolve().name if is_folder else source.rpartition("/")[2])
    if target.exists():
        raise _refused(source, f"{target} is there already; `nss-train model rm {target.name}` removes it")
    models_dir.mkdir(parents=True, exist_ok=True)
    if link:
        target.symlink_to(Path(source).resolve(), target_is_directory=True)
    else:
        _copy(found, target)
    return target


def _found(source: str, models_dir: Path, *, is_folder: bool) -> ModelSource:
    """Return the checked model. A model added by hand is wanted, whatever the policy of jobs."""
    policy = ModelPolicy(models_dir=str(models_dir), allow_paths=is_folder, allow_hub=not is_folder)
    try:
        return find_model(str(Path(source).resolve()) if is_folder else source, policy)
    except InfrastructureError as error:
        remedy = "OWNER/NAME is fetched from the hub, which is out of reach here; fetch it elsewhere, bring"
        remedy += " its folder to this machine and add that: nss-train model add PATH"
        raise InfrastructureError(
            error.message, [Problem(field="model", value=source, remedy=remedy)]
        ) from error


def _copy(found: ModelSource, target: Path) -> None:
    aside = target.with_name(f".{target.name}.part")
    shutil.rmtree(aside, ignore_errors=True)
    aside.mkdir()
    copy_files(found.files, aside, seen=found.seen)
    aside.rename(target)


def _refused(source: str, remedy: str) -> ParameterError:
    return ParameterError("No model is added.", [Problem(field="model", value=source, remedy=remedy)])
