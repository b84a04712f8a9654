"""Loading a base model, in the precision that the machine computes in."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, PreTrainedModel

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, slots=True)
class Precision:
    """The data type of the base weights, and why."""

    dtype: torch.dtype
    reason: str

    @property
    def name(self) -> str:
        return str(self.dtype).removeprefix("torch.")


def choose_precision() -> Precision:
    """bfloat16 where the device computes in it, float32 elsewhere; logged with the reason."""
    if torch.cuda.is_available() and torch.cuda.is_bf16_supported(including_emulation=False):
        chosen = Precision(dtype=torch.bfloat16, reason="the CUDA device computes in bfloat16")
    elif torch.cuda.is_available():
        chosen = Precision(dtype=torch.float32, reason="the CUDA device has no bfloat16 units")
    else:
        chosen = Precision(
            dtype=torch.float32, reason="there is no CUDA device, and a CPU is slow in bfloat16"
        )
    logger.info("dtype=%s because %s", chosen.name, chosen.reason, extra={"action": "model.dtype"})
    return chosen


def load_base(
    folder: Path, precision: Precision, *, attention: str, trust_remote_code: bool
) -> PreTrainedModel:
    """A causal language model from a local safetensors folder."""
    options: dict[str, Any] = {"dtype": precision.dtype, "use_safetensors": True}
    model: PreTrainedModel = AutoModelForCausalLM.from_pretrained(
        str(folder),
        attn_implementation=choose_attention(attention),
        trust_remote_code=trust_remote_code,
        **options,
    )
    return model


def choose_attention(wanted: str) -> str:
    """The configured attention, or ``sdpa`` when its kernels cannot be loaded; logged with the reason."""
    from importlib.util import find_spec

    if wanted.startswith("kernels-community/") and find_spec("kernels") is None:
        logger.warning("attn_implementation=sdpa because %s needs the package kernels", wanted)
        return "sdpa"
    return wanted
