"""The choice of how a training computes on its device; each choice is logged with its reason."""

from __future__ import annotations

import logging

import torch
from peft import PeftModel
from transformers import PreTrainedModel

from nss_train.contract import Kernels
from nss_train.model.layers.loss import Head

logger = logging.getLogger(__name__)

WORTH_COMPILING = 2e16
"""Parameters × tokens from which on compiled layers save more time than compiling them takes.

On an H200 it took 80 s with empty caches; 3.1 G parameters then train at 34,000 tokens/s instead of about
23,000, so that 6 million tokens make up for it."""


def base_of(model: PeftModel) -> PreTrainedModel:
    """Return the model inside an adapter."""
    base = model.get_base_model()
    if not isinstance(base, PreTrainedModel):
        raise TypeError(f"expected a PreTrainedModel, got {type(base)}")
    return base


def choose_head(model: PeftModel, kernels: Kernels, *, sharing: bool) -> Head | None:
    """Return the head that computes the loss in parts; ``None`` where the model's own loss is taken."""
    if kernels.loss == "model":
        reason, found = "it is asked for", None
    elif sharing:
        reason, found = "ranks that share weights gather them in the model's forward", None
    else:
        found = Head.of(base_of(model))
        reason = "the family's head is known" if found else "the family's head is not known"
    logger.info("loss=%s because %s", "chunked" if found else "model", reason)
    return found


def worth_compiling(model: PeftModel, tokens: int, kernels: Kernels) -> bool:
    """Tell whether to compile the layers for a training of so many tokens; log the reason."""
    work = model.num_parameters() * tokens
    if kernels.layers != "auto":
        chosen, reason = kernels.layers == "compiled", "it is asked for"
    elif not torch.cuda.is_available():
        chosen, reason = False, "a CPU gains too little"
    else:
        chosen, reason = work > WORTH_COMPILING, f"parameters × tokens are {work:.1g}"
    logger.info("layers=%s because %s", "compiled" if chosen else "eager", reason)
    return chosen
