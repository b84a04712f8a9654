"""Where a base model comes from, and whether it may be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from nss_train.contract import ModelPolicy
from nss_train.errors import ParameterError, Problem

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A base model that passed the checks."""

    name: str
    folder: Path
    trust_remote_code: bool

    @property
    def files(self) -> list[Path]:
        """What a prepared model is made of, sorted."""
        return sorted(p for p in self.folder.iterdir() if p.is_file() and p.suffix not in (".md", ".gguf"))


def find_model(name: str, policy: ModelPolicy, *, fetched: Path | None = None) -> ModelSource:
    """The model a config names: a folder, a name below the operator's models, a store key, a hub id.

    ``fetched`` is the local copy of a ``store:`` model. Raises :class:`ParameterError` with every
    reason why the model cannot be used.
    """
    folder = fetched or _folder(name, policy)
    if folder is None:
        where = f"no such folder, and no model of that name in {policy.models_dir}"
        hub = "" if policy.allow_hub else "; downloads from the hub are switched off (NSS_TRAIN_ALLOW_HUB)"
        remedy = f"{where}{hub}; `nss-train model list` shows what is there"
        raise ParameterError("Base model not found.", [_problem(name, remedy)])
    problems = [_problem(name, remedy) for remedy in _faults(folder, name, policy)]
    if problems:
        raise ParameterError("The base model cannot be used.", problems)
    return ModelSource(name=name, folder=folder, trust_remote_code=name in policy.trust_remote_code)


def _folder(name: str, policy: ModelPolicy) -> Path | None:
    for candidate in (Path(name), Path(policy.models_dir) / name):
        if candidate.is_dir():
            return candidate
    return _download(name) if policy.allow_hub else None


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))


def _faults(folder: Path, name: str, policy: ModelPolicy) -> list[str]:
    names = {p.name for p in folder.iterdir()}
    faults = [
        f"{required} is missing from the model folder" for required in REQUIRED if required not in names
    ]
    pickles = sorted(n for n in names if n.endswith(PICKLES))
    if pickles:
        faults.append(f"pickle files can run code when loaded; remove or convert {', '.join(pickles)}")
    if not any(n.endswith(".safetensors") for n in names):
        faults.append("there is no .safetensors file; convert the weights")
    if "config.json" in names and name not in policy.trust_remote_code:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        if "auto_map" in config:
            faults.append(
                "the model brings its own code; the operator must list it in NSS_TRAIN_TRUST_REMOTE_CODE"
            )
    return faults


def _problem(name: str, remedy: str) -> Problem:
    return Problem(field="training.pretrained_model", value=name, remedy=remedy)
