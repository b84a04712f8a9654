"""Quantized base models: what the loader is told, and how LoftQ begins."""

from __future__ import annotations

from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from transformers import BitsAndBytesConfig, FineGrainedFP8Config, TorchAoConfig
from transformers.utils.quantization_config import Mxfp4Config

from nss_train.model.scheme import Scheme


def quantization_config(scheme: Scheme, compute: torch.dtype) -> Any:
    """What transformers is told; ``compute`` is the type of the products under 4 bits."""
    if scheme is Scheme.BNB_4BIT:
        return BitsAndBytesConfig(  # type: ignore[no-untyped-call]
            load_in_4bit=True,
            bnb_4bit_quant_type="nf4",
            bnb_4bit_use_double_quant=True,
            bnb_4bit_compute_dtype=compute,
        )
    if scheme is Scheme.BNB_8BIT:
        return BitsAndBytesConfig(load_in_8bit=True)  # type: ignore[no-untyped-call]
    if scheme is Scheme.FP8:
        return FineGrainedFP8Config()
    if scheme is Scheme.MXFP4:
        return Mxfp4Config()
    from torchao.prototype.mx_formats import NVFP4WeightOnlyConfig  # type: ignore[import-not-found]

    return TorchAoConfig(NVFP4WeightOnlyConfig())


def initialize_loftq(model: PeftModel, full: dict[str, torch.Tensor]) -> None:
    """Make the adapter of a quantized model equal what quantization lost, as far as its rank allows.

    One step of LoftQ (Li et al. 2023, algorithm 1): a truncated singular value decomposition of
    W - dequantize(Q), divided by the adapter's scale, which is not 1 under rsLoRA. ``full`` holds
    the weights before quantization, by the names of the base model.
    """
    for name, layer in model.get_base_model().named_modules():
        if not isinstance(layer, LoraLayer):
            continue
        (adapter,) = layer.active_adapters
        lost = full[f"{name}.weight"].float() - dequantize_module_weight(layer.base_layer).float()
        rank, scale = layer.r[adapter], layer.scaling[adapter]
        left, values, right = torch.linalg.svd(lost, full_matrices=False)
        root = (values[:rank] / scale).sqrt()
        layer.lora_B[adapter].weight.data = (left[:, :rank] * root).contiguous()
        layer.lora_A[adapter].weight.data = (root[:, None] * right[:rank]).contiguous()
