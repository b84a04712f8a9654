"""Where a base model comes from, and whether it may be used."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nss_train.contract import ModelPolicy
from nss_train.errors import InfrastructureError, ParameterError, Problem

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")
STORE = "store:"
INDEX = "model.safetensors.index.json"


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
    reason why the model cannot be used, :class:`InfrastructureError` when the hub does not answer.
    """
    folder = fetched or _folder(name, policy)
    if folder is None:
        raise ParameterError("Base model not found.", [_problem(name, _where(name, policy))])
    problems = [_problem(name, remedy) for remedy in _faults(folder, name, policy)]
    if problems:
        raise ParameterError("The base model cannot be used.", problems)
    return ModelSource(name=name, folder=folder, trust_remote_code=name in policy.trust_remote_code)


def _where(name: str, policy: ModelPolicy) -> str:
    if name.startswith(STORE):
        return "the store has no files below that key"
    hub = "" if policy.allow_hub else "; downloads from the hub are switched off (NSS_TRAIN_ALLOW_HUB)"
    where = f"no such folder, and no model of that name in {policy.models_dir}"
    return f"{where}{hub}; `nss-train model list` shows what is there"


def _folder(name: str, policy: ModelPolicy) -> Path | None:
    if not name.strip() or name.startswith(STORE):
        return None
    given, known = Path(name), Path(policy.models_dir) / name
    candidates = (given, known) if policy.allow_paths else (known,) if _stays_inside(given) else ()
    for candidate in candidates:
        if candidate.is_dir():
            return candidate
    return _download(name) if policy.allow_hub and _stays_inside(given) else None


def _stays_inside(path: Path) -> bool:
    """Whether a name leads nowhere but below the folder in which it is looked up."""
    return not path.is_absolute() and ".." not in path.parts


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=["*.json", "*.safetensors", "*.jinja"]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        remedy = "neither a folder nor a model of the hub; write OWNER/NAME"
        raise ParameterError("Base model not found.", [_problem(name, remedy)]) from error
    except OSError as error:
        raise InfrastructureError(f"The model hub does not answer: {error}") from error


def _faults(folder: Path, name: str, policy: ModelPolicy) -> list[str]:
    names = {p.name for p in folder.iterdir()}
    faults = [f"{one} is missing from the model folder" for one in REQUIRED if one not in names]
    pickles = sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if p.name.endswith(PICKLES))
    if pickles:
        faults.append(f"pickle files can run code when loaded; remove or convert {', '.join(pickles)}")
    if not any(n.endswith(".safetensors") for n in names):
        faults.append("there is no .safetensors file; convert the weights")
    faults += _missing_shards(folder)
    if "config.json" in names:
        faults += _config_faults(folder / "config.json", trusted=name in policy.trust_remote_code)
    return faults


def _missing_shards(folder: Path) -> list[str]:
    index = _object(folder / INDEX) if (folder / INDEX).is_file() else {}
    if index is None:
        return [f"{INDEX} is not a JSON object"]
    weights = index.get("weight_map", {})
    if not isinstance(weights, dict) or not all(map(_is_plain_name, weights.values())):
        return [f"{INDEX} names what is no file of the folder"]
    shards = sorted(set(weights.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    return [f"{INDEX} names files that are missing: {', '.join(missing)}"] if missing else []


def _is_plain_name(name: Any) -> bool:
    return isinstance(name, str) and Path(name).name == name


def _config_faults(path: Path, *, trusted: bool) -> list[str]:
    config = _object(path)
    if config is None:
        return ["config.json is not a JSON object"]
    if "auto_map" in config and not trusted:
        return ["the model brings its own code; the operator must list it in NSS_TRAIN_TRUST_REMOTE_CODE"]
    return []


def _object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file, or ``None`` when there is none in it."""
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError:
        return None
    return document if isinstance(document, dict) else None


def _problem(name: str, remedy: str) -> Problem:
    return Problem(field="training.pretrained_model", value=name, remedy=remedy)
