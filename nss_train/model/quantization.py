"""Quantized base models: the loader's config, and LoftQ's initial weights."""

from __future__ import annotations

from copy import copy
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from transformers import BitsAndBytesConfig

from nss_train.model.scheme import Scheme

NO_OUTLIERS = 0.0
"""Value of ``llm_int8_threshold`` that keeps all columns in 8 bits, whatever their values."""


def quantization_config(scheme: Scheme, compute: torch.dtype) -> BitsAndBytesConfig:
    """Return the config for transformers; ``compute`` is the dtype of products with 4-bit weights."""
    if scheme is Scheme.BNB_4BIT:
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]


def without_outliers(config: Any) -> Any:
    """Return the same quantization without coupling between the rows of a batch.

    LLM.int8 (Dettmers et al. 2022, arXiv 2208.07339) takes a column out of 8 bits for all rows when any
    row has a value above the threshold there: one unit would change the gradients of all units in its
    micro-batch, and the sum by more than the clipping norm. Without a threshold each token only has a
    scale of its own.
    """
    if not getattr(config, "load_in_8bit", False):
        return config
    changed = copy(config)
    changed.llm_int8_threshold = NO_OUTLIERS
    return changed


def initialize_loftq(model: PeftModel, full: dict[str, torch.Tensor]) -> None:
    """Set the adapter of a quantized model to the quantization error, as far as its rank allows.

    One step of LoftQ (Li et al. 2023, algorithm 1): a truncated singular value decomposition of
    W - dequantize(Q), divided by the adapter's scale, which is not 1 under rsLoRA. ``full`` holds
    the weights before quantization, by the names of the base model.
    """
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        (adapter,) = layer.active_adapters
        kept = dequantize_module_weight(layer.base_layer).float()
        lost = full[f"{name}.weight"].to(kept) - kept
        rank, scale = layer.r[adapter], layer.scaling[adapter]
        left, values, right = torch.linalg.svd(lost, full_matrices=False)
        root = (values[:rank] / scale).sqrt()
        layer.lora_B[adapter].weight.data = (left[:, :rank] * root).contiguous()
        layer.lora_A[adapter].weight.data = (root[:, None] * right[:rank]).contiguous()
