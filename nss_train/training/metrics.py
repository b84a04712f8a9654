"""Evaluation without keeping the logits."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import torch
from transformers import EvalPrediction

logger = logging.getLogger(__name__)


def preprocess_logits_for_metrics(
    logits: torch.Tensor | tuple[torch.Tensor, ...], labels: torch.Tensor
) -> Any:
    """Predicted ids, shape (batch, tokens), and labels: logits of all batches would not fit into memory."""
    first = logits[0] if isinstance(logits, tuple) else logits
    return first.argmax(dim=-1), labels


def compute_metrics(predictions: EvalPrediction) -> dict[str, float]:
    """``eval_loss``: the mean of the losses of the batches."""
    losses = np.asarray([] if predictions.losses is None else predictions.losses)
    loss = float(losses.mean()) if losses.size else float("nan")
    logger.info("evaluation loss %.4f", loss, extra={"action": "train.evaluated"})
    return {"eval_loss": loss}
