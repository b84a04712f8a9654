"""Gradients of single rows: what backpropagation usually adds up is kept apart."""

from __future__ import annotations

from typing import Any

import torch
from opacus.grad_sample.grad_sample_module import GradSampleHooks
from peft import PeftModel


class RowGradients:
    """Opacus' hooks on a model's trained weights, the LoRA factors; on from its making to :meth:`close`.

    The loss must be a sum over rows, and layers may be recomputed in the reentrant way only: Opacus
    sees nothing of them otherwise.
    """

    def __init__(self, model: PeftModel) -> None:
        self._weights: list[Any] = [weight for weight in model.parameters() if weight.requires_grad]
        # Hooks on a layer want inputs that have a gradient, and the embeddings in front have none.
        model.enable_input_require_grads()
        self._hooks = GradSampleHooks(model, loss_reduction="sum")

    def take(self) -> list[torch.Tensor]:
        """Gradients since the last call, one tensor of shape (rows, …) per weight; forgotten from then on."""
        found = [weight.grad_sample for weight in self._weights]
        if not all(isinstance(one, torch.Tensor) for one in found):
            raise RuntimeError("a trained weight has no gradient for each row: the guarantee would not hold")
        for weight in self._weights:
            weight.grad_sample = weight.grad = None
        return found

    def close(self) -> None:
        """Leave the model as it was. Idempotent."""
        self._hooks.cleanup()
