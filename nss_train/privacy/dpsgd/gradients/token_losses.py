"""The losses of single tokens, without copies of the logits, which a large vocabulary makes expensive."""

from __future__ import annotations

from typing import Any

import torch

from nss_train.model.tokenizer import IGNORED_LABEL


class TokenLosses(torch.autograd.Function):
    """The cross-entropy of each token, as in ``torch.nn.functional.cross_entropy(reduction="none")``.

    PyTorch's makes three tensors of the logits' size on its way to the gradient, which takes longer than
    anything else in a small model. This one works in the logits' own memory: they are overwritten, so the
    gradient can be computed only once.
    """

    @staticmethod
    def forward(ctx: Any, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return losses (tokens,) of float32 ``logits`` (tokens, vocabulary); a target of -100 has none."""
        learned = targets != IGNORED_LABEL
        chosen = targets.clamp(min=0)[:, None]
        powers = logits.detach()
        largest = powers.amax(1, keepdim=True)
        score = powers.gather(1, chosen) - largest
        powers.sub_(largest).exp_()
        total = powers.sum(1, keepdim=True)
        ctx.save_for_backward(powers, total, chosen, learned)
        losses: torch.Tensor = (total.log() - score).squeeze(1).masked_fill(~learned, 0.0)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None]:
        """Return softmax(logits) − the target's indicator, for each learned token, times its gradient."""
        powers, total, chosen, learned = ctx.saved_tensors
        (gradient,) = gradients
        scale = (gradient * learned)[:, None]
        powers.mul_(scale / total).scatter_add_(1, chosen, -scale)
        return powers, None
