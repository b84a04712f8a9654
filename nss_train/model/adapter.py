"""The LoRA adapter: its configuration, its initial weights, and the model around it."""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from peft.tuners.lora import LoraLayer
from peft.tuners.lora import model as lora_model
from peft.utils import quantization_utils
from transformers import PreTrainedModel

from nss_train.config.sections.training import TrainingHyperparams
from nss_train.errors import ParameterError, Problem
from nss_train.model.quantization import initialize_loftq

_PEFT_ASKS = ("is_bnb_available", "is_bnb_4bit_available")
"""Functions by which PEFT decides on importing bitsandbytes."""


def lora_config(training: TrainingHyperparams) -> LoraConfig:
    """Return NSS's LoRA config: rank-stabilized, so the update is scaled by alpha/√r."""
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=training.lora_r,
        lora_alpha=int(training.lora_alpha_over_r * training.lora_r),
        target_modules=sorted(training.lora_target_modules),
        use_rslora=True,
        init_lora_weights=True,
        inference_mode=False,
    )


def put_adapter(base: PreTrainedModel, training: TrainingHyperparams) -> PeftModel:
    """Put an adapter around a base model, with PEFT's initial weights.

    Raises :class:`ParameterError` when it does not fit the model.
    """
    check_target_modules(base, training.lora_target_modules)
    with _without_needless_imports():
        model = get_peft_model(base, lora_config(training))
    if not isinstance(model, PeftModel):
        raise TypeError(f"expected a PeftModel, got {type(model)}")
    return model


@contextmanager
def _without_needless_imports() -> Iterator[None]:
    """Keep PEFT from importing bitsandbytes, which takes 0.4 s, where no layer can be of its kind.

    A model with such layers has imported it. PEFT imports it to look at the layers, wherever it is installed.
    """
    if "bitsandbytes" in sys.modules:
        yield
        return
    asking: list[Any] = [lora_model, quantization_utils]
    kept = [(module, name, getattr(module, name)) for module in asking for name in _PEFT_ASKS]
    for module, name, _ in kept:
        setattr(module, name, lambda: False)
    try:
        yield
    finally:
        for module, name, function in kept:
            setattr(module, name, function)


def initial_adapter(
    base: PreTrainedModel,
    training: TrainingHyperparams,
    *,
    seed: int,
    full: dict[str, torch.Tensor] | None = None,
) -> PeftModel:
    """Put a new adapter around a base model; the seed alone decides its weights.

    With the ``full`` weights of a quantized base, LoftQ initialises the adapter, without the seed.
    """
    model = put_adapter(base, training)
    if full is None:
        _draw(model, seed)
    else:
        initialize_loftq(model, full)
    return model


def _draw(model: PeftModel, seed: int) -> None:
    """Draw from PEFT's distribution in float32 on the CPU: all ranks, devices and attempts get equal values.

    PEFT itself draws per device and rounds to the base model's dtype. B is zero already.
    """
    generator = torch.Generator().manual_seed(seed)
    for layer in model.modules():
        if not isinstance(layer, LoraLayer):
            continue
        (adapter,) = layer.active_adapters
        weight = layer.lora_A[adapter].get_parameter("weight")
        drawn = torch.empty(weight.shape, dtype=torch.float32, device="cpu")
        torch.nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
        weight.data.copy_(drawn)


def ready_for_training(base: PreTrainedModel, *, checkpointing: bool) -> PreTrainedModel:
    """Prepare the base model for training, before an adapter is put around it; return it.

    PEFT's own preparation of a quantized model turns norms, embeddings and head into float32, which
    doubles the activations; norms compute in float32 anyway.
    """
    base.config.use_cache = False
    if checkpointing:
        # Without it no gradient flows from frozen embeddings into the recomputed layers.
        base.enable_input_require_grads()  # type: ignore[no-untyped-call]
    return base


def check_target_modules(base: PreTrainedModel, wanted: Sequence[str]) -> None:
    """Raise :class:`ParameterError` with every target that matches no linear layer of the model."""
    paths = [name for name, module in base.named_modules() if isinstance(module, torch.nn.Linear)]
    there = sorted({path.rsplit(".", 1)[-1] for path in paths} - {"lm_head"})
    problems = [
        Problem(field="training.lora_target_modules", value=one, remedy=f"choose among {', '.join(there)}")
        for one in wanted
        if not any(path == one or path.endswith(f".{one}") for path in paths)
    ]
    if problems:
        raise ParameterError("The model has no such layers.", problems)


def load_adapter(base: PreTrainedModel, folder: Path, *, trainable: bool) -> PeftModel:
    """Load an adapter from a folder, around a base model."""
    model: PeftModel = PeftModel.from_pretrained(base, str(folder), is_trainable=trainable)
    return model


def save_adapter(
    model: PeftModel, folder: Path, *, base_name: str, weights: Mapping[str, torch.Tensor] | None = None
) -> None:
    """Write the adapter as PEFT does, with the base model's name and reproducible bytes.

    ``weights`` are the complete weights, where this process holds a part of the model.
    """
    for config in model.peft_config.values():
        config.base_model_name_or_path = base_name
    model.save_pretrained(str(folder), save_embedding_layers=False, state_dict=weights)
    config_file = folder / "adapter_config.json"
    document: dict[str, Any] = json.loads(config_file.read_text(encoding="utf-8"))
    # PEFT keeps the modules in a set, whose order follows the process's string-hash seed.
    document["target_modules"] = sorted(document["target_modules"])
    config_file.write_text(json.dumps(document, indent=2, sort_keys=True), encoding="utf-8")
    # PEFT's own card is a template; the artifact tree gets a real one.
    (folder / "README.md").unlink(missing_ok=True)


def snapshot(model: PeftModel) -> dict[str, torch.Tensor]:
    """Return a copy of the adapter's weights, to detect later whether they moved."""
    return {name: p.detach().clone() for name, p in model.named_parameters() if p.requires_grad}


def not_finite(weights: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the weights that hold a NaN or an infinity."""
    return [name for name, weight in weights.items() if not torch.isfinite(weight).all()]


def unmoved(weights: Mapping[str, torch.Tensor], before: Mapping[str, torch.Tensor]) -> list[str]:
    """Return the names of the trainable weights that equal those ``before``."""
    return [name for name, weight in before.items() if torch.equal(weights[name].to(weight.device), weight)]
