"""The loss of learned tokens from hidden states, in parts: logits of all tokens at once are never made.

A large vocabulary makes logits the largest tensor of a training. Prompt and padding are not learned, so
their logits are not computed at all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import nn
from transformers import PreTrainedModel

from nss_train.model.heads import CHUNK_TOKENS, DIVIDED_HEADS, PLAIN_HEADS

Scores = Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The output layer of a language model."""

    decoder: nn.Module
    """The layers below it, which return hidden states."""
    weight: torch.Tensor
    """Shape (vocabulary, hidden)."""
    divisor: float
    scores: Scores

    @classmethod
    def of(cls, model: PreTrainedModel) -> Self | None:
        """Return the head of a causal language model; ``None`` if its logits may be made in another way."""
        config, output = model.config, model.get_output_embeddings()  # type: ignore[no-untyped-call]
        known = config.model_type in PLAIN_HEADS | DIVIDED_HEADS
        if not known or type(output) is not nn.Linear or output.bias is not None:
            return None
        divisor = float(config.logits_scaling) if config.model_type in DIVIDED_HEADS else 1.0
        return cls(decoder=model.get_decoder(), weight=output.weight, divisor=divisor, scores=scores)

    def loss(self, input_ids: torch.Tensor, learned: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum of the learned tokens' cross-entropies, in nats, as a scalar.

        Rows of ``input_ids`` (rows, tokens) are padded on the right and have no mask: attention is causal,
        so no learned token sees the padding. ``learned`` are the flat places, one before each learned
        token, and ``targets`` these tokens; both of shape (learned,).
        """
        hidden = self.decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        chosen = hidden.flatten(0, 1).index_select(0, learned)
        found: torch.Tensor = ChunkedLoss.apply(chosen, self, targets)  # type: ignore[no-untyped-call]
        return found


class ChunkedLoss(torch.autograd.Function):
    """The cross-entropy of the tokens after hidden states, whose gradient is computed with the loss.

    The head is frozen, so the gradient of the hidden states is all that is needed later, and it is as small
    as they are.
    """

    @staticmethod
    def forward(ctx: Any, hidden: torch.Tensor, head: Head, targets: torch.Tensor) -> torch.Tensor:
        """Return the sum over ``hidden`` (tokens, width) and ``targets`` (tokens,), in float32."""
        device = hidden.device.type
        gradient = torch.empty_like(hidden)
        total = torch.zeros((), dtype=torch.float32, device=hidden.device)
        # In the hidden states' own precision, which autocast would lower for float32.
        with torch.autocast(device, enabled=False):
            weight = head.weight.to(hidden.dtype)
            for first in range(0, len(hidden), CHUNK_TOKENS[device]):
                part = slice(first, first + CHUNK_TOKENS[device])
                losses, slopes = head.scores(hidden[part] @ weight.T, targets[part], head.divisor)
                total += losses.sum()
                torch.mm(slopes, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return total

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        """Return the kept gradient times that of the sum."""
        (kept,) = ctx.saved_tensors
        return kept * gradients[0].to(kept.dtype), None, None


def scores(logits: torch.Tensor, targets: torch.Tensor, divisor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropies (tokens,) and their gradients by ``logits`` (tokens, vocabulary).

    They are computed in float32: softmax(logits / divisor) minus the target's indicator, over the divisor.
    ``logits`` may be overwritten.
    """
    values, chosen = logits.float(), targets[:, None]
    if divisor != 1.0:
        values = values / divisor
    total = values.logsumexp(1, keepdim=True)
    losses = (total - values.gather(1, chosen)).squeeze(1)
    slopes = values.sub_(total).exp_()
    slopes.scatter_add_(1, chosen, torch.full_like(total, -1.0))
    if divisor != 1.0:
        slopes = slopes / divisor
    return losses, slopes.to(logits.dtype)
