"""Gradients of single rows, which backpropagation usually sums."""

from __future__ import annotations

from typing import Any

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from peft import PeftModel


class RowGradients:
    """Opacus' hooks on a model's trained weights, the LoRA factors, until :meth:`close`.

    The loss must be a sum over rows, and activation checkpointing must be reentrant: Opacus' hooks miss
    recomputed layers otherwise.
    """

    def __init__(self, model: PeftModel) -> None:
        self._weights: list[Any] = [weight for weight in model.parameters() if weight.requires_grad]
        # Hooks on a layer need inputs that have a gradient, and the frozen embeddings give none.
        model.enable_input_require_grads()
        self._hooks = GradSampleHooks(model, loss_reduction="sum")

    def take(self) -> list[torch.Tensor]:
        """Return and reset the gradients since the last call, one tensor of shape (rows, …) per weight."""
        found = [weight.grad_sample for weight in self._weights]
        if not all(isinstance(one, torch.Tensor) for one in found):
            raise RuntimeError("a trained weight has no gradient for each row: the guarantee would not hold")
        for weight in self._weights:
            weight.grad_sample = weight.grad = None
        return found

    def close(self) -> None:
        """Restore the model by removing the hooks. Idempotent."""
        self._hooks.cleanup()
