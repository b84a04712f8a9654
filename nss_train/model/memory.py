"""Whether training fits into memory, and what to give up when it does not."""

from __future__ import annotations

import logging
from dataclasses import dataclass

import psutil
import torch
from transformers import PretrainedConfig

from nss_train.model.footprint import FLOATS_PER_LAYER_TOKEN, LOGIT_BYTES

logger = logging.getLogger(__name__)

_HEADROOM = 0.8


@dataclass(frozen=True, kw_only=True, slots=True)
class Estimate:
    """Bytes that a training step needs beyond the weights, and bytes that there are."""

    activation_bytes: int
    available_bytes: int

    @property
    def needs_checkpointing(self) -> bool:
        return self.activation_bytes > _HEADROOM * self.available_bytes


def estimate(config: PretrainedConfig, *, tokens: int, batch_size: int, bytes_per_value: int) -> Estimate:
    """Activations of ``batch_size`` examples of ``tokens`` tokens, logits included."""
    per_layer = FLOATS_PER_LAYER_TOKEN * config.hidden_size * config.num_hidden_layers
    logits = LOGIT_BYTES * config.vocab_size
    needed = tokens * batch_size * (per_layer * bytes_per_value + logits)
    return Estimate(activation_bytes=needed, available_bytes=available_bytes())


def fits(config: PretrainedConfig, *, bytes_per_value: int) -> int:
    """Tokens whose activations, recomputed or not, fit into memory at once."""
    one = estimate(config, tokens=1, batch_size=1, bytes_per_value=bytes_per_value)
    return int(_HEADROOM * one.available_bytes) // one.activation_bytes


def available_bytes() -> int:
    """Free memory of the device that will train."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def choose_checkpointing(found: Estimate) -> bool:
    """Whether to recompute activations instead of keeping them; logged with the reason."""
    chosen = found.needs_checkpointing
    logger.info(
        "gradient_checkpointing=%s because activations need about %.1f GiB and %.1f GiB are free",
        chosen,
        found.activation_bytes / 2**30,
        found.available_bytes / 2**30,
        extra={"action": "model.checkpointing"},
    )
    return chosen
