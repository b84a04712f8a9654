"""Evaluation whose memory does not grow with the number of batches."""

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
    """Return predicted ids (batch, tokens) and labels: all batches' logits would not fit into memory."""
    first = logits[0] if isinstance(logits, tuple) else logits
    return first.argmax(dim=-1), labels


def compute_metrics(eval_preds: EvalPrediction) -> dict[str, float]:
    """Return ``eval_loss``, the mean of the batches' losses."""
    losses = np.asarray([] if eval_preds.losses is None else eval_preds.losses)
    loss = float(losses.mean()) if losses.size else float("nan")
    logger.info("evaluation loss %.4f", loss, extra={"action": "train.evaluated"})
    return {"eval_loss": loss}


class BatchedMetrics:
    """A :func:`compute_metrics` for a trainer that passes one batch at a time and then drops it."""

    def __init__(self) -> None:
        self._losses: list[float] = []

    def __call__(self, eval_preds: EvalPrediction, compute_result: bool = False) -> dict[str, float]:
        if eval_preds.losses is not None:
            self._losses += torch.as_tensor(eval_preds.losses).reshape(-1).tolist()
        if not compute_result:
            return {}
        losses, self._losses = np.asarray(self._losses), []
        return compute_metrics(EvalPrediction(predictions=losses, label_ids=losses, losses=losses))
