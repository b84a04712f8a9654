"""The memory of a training, and whether it requires activation checkpointing."""

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
    """The bytes that a training step needs besides the weights, and the available bytes."""

    activation_bytes: int
    available_bytes: int

    @property
    def needs_checkpointing(self) -> bool:
        return self.activation_bytes > _HEADROOM * self.available_bytes


def estimate(config: PretrainedConfig, *, tokens: int, batch_size: int, bytes_per_value: int) -> Estimate:
    """Estimate the activations of ``batch_size`` examples of ``tokens`` tokens, logits included."""
    per_layer = FLOATS_PER_LAYER_TOKEN * config.hidden_size * config.num_hidden_layers
    logits = LOGIT_BYTES * config.vocab_size
    needed = tokens * batch_size * (per_layer * bytes_per_value + logits)
    return Estimate(activation_bytes=needed, available_bytes=available_bytes())


def fits(config: PretrainedConfig, *, bytes_per_value: int) -> int:
    """Return the number of tokens whose activations fit into memory at once, recomputed or not."""
    one = estimate(config, tokens=1, batch_size=1, bytes_per_value=bytes_per_value)
    return int(_HEADROOM * one.available_bytes) // one.activation_bytes


def available_bytes() -> int:
    """Return the free memory of the training device, in bytes."""
    if torch.cuda.is_available():
        return int(torch.cuda.mem_get_info()[0])
    return int(psutil.virtual_memory().available)


def choose_checkpointing(found: Estimate) -> bool:
    """Tell whether to recompute activations instead of keeping them; log the reason."""
    chosen = found.needs_checkpointing
    logger.info(
        "gradient_checkpointing=%s because activations need about %.1f GiB and %.1f GiB are free",
        chosen,
        found.activation_bytes / 2**30,
        found.available_bytes / 2**30,
        extra={"action": "model.checkpointing"},
    )
    return chosen
