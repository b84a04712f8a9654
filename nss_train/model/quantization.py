"""Quantized base models: which scheme, whether this machine can, and what the loader is told."""

from __future__ import annotations

import logging
from enum import StrEnum
from importlib.util import find_spec
from typing import Any

import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight
from transformers import BitsAndBytesConfig, FineGrainedFP8Config, TorchAoConfig
from transformers.utils.quantization_config import Mxfp4Config

from nss_train.config.training import TrainingHyperparams
from nss_train.errors import ParameterError, Problem

logger = logging.getLogger(__name__)

LOFTQ = "loftq"
_FP8_CAPABILITY = (8, 9)
_FP4_CAPABILITY = (10, 0)


class Scheme(StrEnum):
    """NSS's names."""

    BNB_4BIT = "bnb-4bit"
    BNB_8BIT = "bnb-8bit"
    FP8 = "fp8"
    NVFP4 = "nvfp4"
    MXFP4 = "mxfp4"

    @property
    def is_bitsandbytes(self) -> bool:
        """Whether the quantized weights can be stored, and made on any device."""
        return self in (Scheme.BNB_4BIT, Scheme.BNB_8BIT)


def choose_scheme(training: TrainingHyperparams) -> Scheme | None:
    """The scheme that a config asks for; ``None`` when it asks for none.

    Raises :class:`ParameterError` when the machine or a package lacks what the scheme needs.
    """
    if not training.quantize_model:
        return None
    given = training.quantization_scheme
    bits = training.__dict__["quantization_bits"]  # a deprecated field warns when it is read
    scheme = Scheme(given) if given is not None else Scheme.BNB_4BIT if bits == 4 else Scheme.BNB_8BIT
    logger.info(
        "quantization=%s because %s", scheme, "it is set" if given else f"quantization_bits is {bits}"
    )
    lacking = _lacking(scheme)
    if lacking:
        raise ParameterError("This machine cannot quantize in that way.", [_problem(scheme, lacking)])
    if uses_loftq(training) and not scheme.is_bitsandbytes:
        message = "peft_implementation='loftq' requires a bitsandbytes scheme"
        raise ParameterError(
            message, [_problem(scheme, "use bnb-4bit or bnb-8bit, or another peft_implementation")]
        )
    return scheme


def uses_loftq(training: TrainingHyperparams) -> bool:
    return training.quantize_model and training.peft_implementation.lower() == LOFTQ


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


def _lacking(scheme: Scheme) -> str:
    """What the machine lacks for a scheme; empty when nothing."""
    if scheme.is_bitsandbytes:
        return "" if find_spec("bitsandbytes") else "install the package bitsandbytes"
    if not torch.cuda.is_available():
        return "it needs a CUDA device and there is none; use bnb-4bit or bnb-8bit"
    needed = _FP8_CAPABILITY if scheme is Scheme.FP8 else _FP4_CAPABILITY
    found = torch.cuda.get_device_capability()
    if found < needed and scheme is not Scheme.MXFP4:
        return f"it needs compute capability {needed}, the device has {found}; use bnb-4bit or bnb-8bit"
    package = {Scheme.NVFP4: "torchao", Scheme.MXFP4: "kernels"}.get(scheme)
    if package is not None and find_spec(package) is None:
        return f"install the package {package}, or use bnb-4bit or bnb-8bit"
    return ""


def _problem(scheme: Scheme, remedy: str) -> Problem:
    return Problem(field="training.quantization_scheme", value=scheme.value, remedy=remedy)
