"""The load_model stage: a base model with a digest, shared by all jobs that train an adapter for it."""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from nss_train.artifacts.manifest import NAME as MANIFEST
from nss_train.artifacts.manifest import write_manifest
from nss_train.config import SafeSynthesizerParameters, load_resolved
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.contract import Event, Report, Request, Stage, StageResult
from nss_train.cost.cost import COST, Cost
from nss_train.cost.measure import cost_of_stage
from nss_train.model.footprint import training_bytes
from nss_train.model.local.copying import copy_files
from nss_train.model.local.hashing import learn
from nss_train.model.local.known import memory_of
from nss_train.model.local.source import ModelSource, find_model, read_config
from nss_train.model.metadata import MAX_CONTEXT_TOKENS
from nss_train.model.scheme import choose_scheme, uses_loftq
from nss_train.stages.adapter_check import adapter_parameters, adapter_shape

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel

logger = logging.getLogger(__name__)

FORMAT = 3
"""Format version, part of the digest: increment it when the layout of a prepared model changes."""
DTYPE_REASON = (
    "a model is quantized from float32 everywhere, so that a digest means the same bytes everywhere"
)
"""Reason of the dtype. Unquantized weights keep their file's dtype; the train stage chooses its own."""


def prepare_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Write ``out/model`` unless a model of the same digest is prepared already.

    In either case, an adapter that does not fit the model is refused with :class:`ParameterError`.
    """
    config = load_resolved(folder)
    training = config.training
    fetched = folder / "in" / "source" if (folder / "in" / "source").exists() else None
    memory = memory_of(request, fetched)
    source = find_model(training.pretrained_model, request.policy, fetched=fetched, memory=memory)
    began = time.monotonic()
    trainable = adapter_parameters(source, config, memory.recall(source.folder, source.seen))
    imports_s = time.monotonic() - began  # of torch and what it takes to build a model, mostly
    digests = learn(source, memory, adapters={adapter_shape(config): trainable}).digests
    cost = _cost(folder, source, config, request, imports_s=imports_s)
    parts = _parts(digests, training)
    digest = hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()
    hit = digest in request.prepared or _is_complete(folder / "out" / "model")
    report(Event(action="model.digest", message=f"model {digest[:12]} {'is prepared' if hit else 'is new'}"))
    figures = {
        "digest": digest,
        "train_bytes": _train_bytes(source, training),
        "parameters_trainable": trainable,
    }
    if not hit:
        _write(folder / "out" / "model", source, training, digests=digests)
    precision = {"dtype": parts["dtype"], "dtype_reason": DTYPE_REASON}
    document = figures | precision | {"source": training.pretrained_model, "parts": parts}
    (folder / "out" / "load_model.json").write_text(json.dumps(document, indent=4), encoding="utf-8")
    shown = figures if cost is None else figures | {COST: cost.model_dump()}
    return StageResult(stage=Stage.LOAD_MODEL, figures=shown, model_digest=digest)


def _cost(
    folder: Path,
    source: ModelSource,
    config: SafeSynthesizerParameters,
    request: Request,
    *,
    imports_s: float,
) -> Cost | None:
    """Return the training's cost on a device like this one; ``None`` if it is not requested."""
    if request.paces is None:
        return None
    prepared = folder / "in" / "prepare_data"
    return cost_of_stage(prepared, source, config, paces=Path(request.paces), imports_s=imports_s)


def _parts(digests: Mapping[str, str], training: TrainingHyperparams) -> dict[str, Any]:
    """Return everything that a prepared model depends on."""
    scheme = choose_scheme(training)
    parts = {
        "format": FORMAT,
        "files": dict(sorted(digests.items())),
        "dtype": "float32",
        "quantization": None if scheme is None else scheme.value,
    }
    return parts | {"loftq": _loftq_parts(training)} if uses_loftq(training) else parts


def _loftq_parts(training: TrainingHyperparams) -> dict[str, Any]:
    """Return what LoftQ's initial weights depend on in addition; they do not depend on the seed."""
    return {
        "r": training.lora_r,
        "alpha_over_r": training.lora_alpha_over_r,
        "target_modules": sorted(training.lora_target_modules),
        "base": training.pretrained_model,
    }


def _train_bytes(source: ModelSource, training: TrainingHyperparams) -> int | None:
    """Return the device memory for the longest possible examples, by which a queue is chosen."""
    config = read_config(source.folder)
    factor = 1 if training.rope_scaling_factor == "auto" else training.rope_scaling_factor
    context = min(int(config.get("max_position_embeddings") or MAX_CONTEXT_TOKENS), MAX_CONTEXT_TOKENS)
    return training_bytes(config, training, tokens=context * factor, scheme=choose_scheme(training))


def _write(
    out: Path, source: ModelSource, training: TrainingHyperparams, *, digests: Mapping[str, str]
) -> None:
    from nss_train.model.loading import check_weights

    shutil.rmtree(out, ignore_errors=True)  # what an interrupted run of the same stage left
    (out / "base").mkdir(parents=True)
    stored = choose_scheme(training) is not None
    if stored:
        _write_quantized(out, source, training)
    else:
        check_weights(source.folder)
    copied = [path for path in source.files if not (stored and _is_written_anew(path.name))]
    copy_files(copied, out / "base", seen=source.seen)
    write_manifest(out, known={f"base/{path.name}": digests[path.name] for path in copied})


def _is_written_anew(name: str) -> bool:
    """Tell whether a quantized model has its own file of this name: its weights and its config."""
    return name.endswith((".safetensors", ".index.json")) or name == "config.json"


def _write_quantized(out: Path, source: ModelSource, training: TrainingHyperparams) -> None:
    """Write the quantized base, and LoftQ's adapter: unquantized weights are available only here."""
    from nss_train.model.adapter import initial_adapter, save_adapter

    base = _load(source, training, quantized=True)
    base.save_pretrained(out / "base")
    full = full_weights(source, training)
    if full is not None:
        # The seed has no effect here, and is not part of the digest.
        model = initial_adapter(base, training, seed=0, full=full)
        save_adapter(model, out / "adapter", base_name=training.pretrained_model)


def _load(source: ModelSource, training: TrainingHyperparams, *, quantized: bool) -> PreTrainedModel:
    from nss_train.model.loading import FLOAT32, load_base
    from nss_train.model.quantization import quantization_config

    scheme = choose_scheme(training) if quantized else None
    return load_base(
        source.folder,
        FLOAT32,
        attention=training.attn_implementation,
        trust_remote_code=source.trust_remote_code,
        quantization=None if scheme is None else quantization_config(scheme, FLOAT32.dtype),
    )


def full_weights(source: ModelSource, training: TrainingHyperparams) -> dict[str, torch.Tensor] | None:
    """Return the weights before quantization if LoftQ needs them, else ``None``."""
    if not uses_loftq(training):
        return None
    return dict(_load(source, training, quantized=False).state_dict())


def _is_complete(model: Path) -> bool:
    """Tell whether a model is complete: its manifest is written last."""
    return (model / MANIFEST).is_file()
