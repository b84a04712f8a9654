"""The source of a base model, and the checks before it is used."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from nss_train import __version__
from nss_train.contract import ModelPolicy
from nss_train.documents import is_unicode
from nss_train.errors import InfrastructureError, ParameterError, Problem
from nss_train.model.bounds.config import against_weights, config_faults
from nss_train.model.bounds.tokenizer import added_beside_faults, tokenizer_faults
from nss_train.model.bounds.weights import INDEX, SINGLE, Weights, read_headers
from nss_train.model.local.folder import (
    BadDocument,
    file_faults,
    model_files,
    names_below,
    read_object,
    resolved,
)
from nss_train.model.local.known import Memory
from nss_train.model.local.snapshot import Snapshot
from nss_train.model_files import DOCUMENT_BYTES, WEIGHTS
from nss_train.model_names import folder_of, may_be_of_the_hub, unknown

PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")
REQUIRED = ("config.json", "tokenizer.json", "tokenizer_config.json")
ADAPTER = "adapter_config.json"
"""Name of an adapter's config; transformers would load the base model that it names, from anywhere."""


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelSource:
    """A base model that passed the checks."""

    name: str
    folder: Path
    trust_remote_code: bool
    seen: Snapshot
    """The files as they were before the checks."""

    @property
    def files(self) -> list[Path]:
        """Return the files of a prepared model, sorted."""
        return [self.folder / name for name in sorted(self.seen.identities)]

    @property
    def checked_by(self) -> str:
        """Return the name of the rules that the files' contents passed."""
        return _rules(trusted=self.trust_remote_code)

    def check_unchanged(self) -> None:
        """Raise :class:`InfrastructureError` if a file is not the one that was checked any more."""
        for path in self.files:
            self.seen.check(path, resolved(path).lstat())


def find_model(
    name: str, policy: ModelPolicy, *, fetched: Path | None = None, memory: Memory | None = None
) -> ModelSource:
    """Return the model that a config names: a folder, a name below ``models_dir``, a store key, a hub id.

    ``fetched`` is the local copy of a ``store:`` model. Contents that passed the checks before, as
    ``memory`` has it, are not read again. Raises :class:`ParameterError` with every reason
    why the model cannot be used, and :class:`InfrastructureError` when the hub does not answer.
    """
    folder = fetched or _folder(name, policy)
    if folder is None:
        raise ParameterError("Base model not found.", [unknown(name, policy)])
    trusted = name in policy.trust_remote_code
    seen, faults = _look(folder, memory or Memory(None), trusted=trusted)
    if faults:
        problems = [_problem(name, remedy) for remedy in faults]
        raise ParameterError("The base model cannot be used.", problems)
    return ModelSource(name=name, folder=folder, trust_remote_code=trusted, seen=seen)


def read_config(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of a model that passed the checks."""
    found: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    return found


def _folder(name: str, policy: ModelPolicy) -> Path | None:
    """Return the folder of a model, which the hub may have to send."""
    folder = folder_of(name, policy)
    return _download(name) if folder is None and may_be_of_the_hub(name, policy) else folder


def _download(name: str) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError

    try:
        return Path(snapshot_download(name, allow_patterns=[*DOCUMENT_BYTES, WEIGHTS]))
    except (HFValidationError, RepositoryNotFoundError) as error:
        remedy = "neither a folder nor a model of the hub; write OWNER/NAME"
        raise ParameterError("Base model not found.", [_problem(name, remedy)]) from error
    except OSError as error:
        raise InfrastructureError(f"The model hub does not answer: {error}") from error


def _look(folder: Path, memory: Memory, *, trusted: bool) -> tuple[Snapshot, list[str]]:
    """Return the files of a folder, and what is wrong with them."""
    seen = Snapshot.take([])
    try:
        faults = _folder_faults(folder, names_below(folder), trusted=trusted)
        if not faults:
            seen = Snapshot.take(model_files(folder, trusted=trusted)).without(_unnamed_weights(folder))
    except (BadDocument, OSError) as error:
        return seen, [str(error)]
    # Only plain files of the folder are opened.
    if not faults and memory.recall(folder, seen).checked != _rules(trusted=trusted):
        faults = _content_faults(folder, trusted=trusted)
    return seen, faults


def _unnamed_weights(folder: Path) -> set[str]:
    """Return the weight files that no reader of the model opens, such as a second format of the weights."""
    index = read_object(folder / INDEX) if (folder / INDEX).is_file() else {}
    shards = _shards(folder, index)
    there = {path.name for path in folder.glob(WEIGHTS)}
    # An index that is at fault is reported with the contents.
    return set() if isinstance(shards, str) else there.difference(shards)


def _rules(*, trusted: bool) -> str:
    return f"nss-train {__version__}{', trusted code' if trusted else ''}"


def _folder_faults(folder: Path, below: list[str], *, trusted: bool) -> list[str]:
    """Return what is wrong with the names, kinds and sizes of files, without opening any."""
    names = {name for name in below if "/" not in name}
    faults = [f"{one} is missing from the model folder" for one in REQUIRED if one not in names]
    pickles = [name for name in below if name.endswith(PICKLES)]
    if pickles:
        faults.append(f"pickle files can run code when loaded; remove or convert {', '.join(pickles)}")
    if not any(n.endswith(".safetensors") for n in names):
        faults.append("there is no .safetensors file; convert the weights")
    if ADAPTER in names:
        faults.append(f"{ADAPTER} leads to another base model; merge the adapter, or remove the file")
    return faults + list(file_faults(folder, trusted=trusted))


def _content_faults(folder: Path, *, trusted: bool) -> list[str]:
    """Return what is wrong with the files' contents; a trusted model, which may run code, is checked less."""
    documents: dict[str, dict[str, Any]] = {}
    faults = []
    for path in model_files(folder, trusted=False):
        try:
            documents |= {path.name: read_object(path)} if path.suffix == ".json" else {}
        except (BadDocument, OSError) as error:
            faults.append(str(error))
    shards = _shards(folder, documents.get(INDEX, {}))
    if isinstance(shards, str):
        faults.append(shards)
    if faults or isinstance(shards, str):
        return faults
    weights = read_headers(folder, shards)
    faults += weights.faults
    if not trusted:
        faults += _untrusted(documents)
        faults += _bounds(documents, weights)
    return faults


def _untrusted(documents: Mapping[str, dict[str, Any]]) -> list[str]:
    faults = []
    if any("auto_map" in document for document in documents.values()):
        faults.append(
            "the model brings its own code; the operator must list it in NSS_TRAIN_TRUST_REMOTE_CODE"
        )
    if "fast_tokenizer_files" in documents["tokenizer_config.json"]:
        faults.append("tokenizer_config.json: fast_tokenizer_files leads to other files; remove it")
    for name in ("bos_token", "eos_token"):
        token = documents["tokenizer_config.json"].get(name)
        text = token.get("content", token) if isinstance(token, dict) else token
        if text is not None and not (isinstance(text, str) and is_unicode(text)):
            faults.append(f"tokenizer_config.json: {name} must be a text")
    return faults


def _bounds(documents: Mapping[str, dict[str, Any]], weights: Weights) -> list[str]:
    config = documents["config.json"]
    vocabulary = config.get("vocab_size")
    faults = config_faults(config)
    if not faults:
        faults += against_weights(config, tensors=weights.tensors, bytes_there=weights.bytes_there)
    faults += added_beside_faults(documents)
    try:
        return faults + tokenizer_faults(
            documents["tokenizer.json"], vocabulary=vocabulary if type(vocabulary) is int else None
        )
    except RecursionError:
        return [*faults, "tokenizer.json is nested too deep"]


def _shards(folder: Path, index: Mapping[str, object]) -> list[str] | str:
    """Return the files that hold the weights, or why there are none."""
    weights = index.get("weight_map", {})
    if not isinstance(weights, dict) or not all(map(_is_weights_name, weights.values())):
        return f"{INDEX} names what is no file of the folder"
    shards = sorted(set(weights.values()))
    missing = [shard for shard in shards if not (folder / shard).is_file()]
    if missing:
        return f"{INDEX} names files that are missing: {', '.join(missing[:10])}"
    # Like transformers, which reads no index beside a single file.
    if (folder / SINGLE).is_file():
        return [SINGLE]
    return shards or f"there is neither {SINGLE} nor {INDEX}"


def _is_weights_name(name: object) -> bool:
    return isinstance(name, str) and Path(name).name == name and name.endswith(".safetensors")


def _problem(name: str, remedy: str) -> Problem:
    return Problem(field="training.pretrained_model", value=name, remedy=remedy)
