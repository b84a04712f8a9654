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

from nss_train.model.layers.attention import without_mask
from nss_train.model.layers.heads import CHUNK_TOKENS, DIVIDED_HEADS, PLAIN_HEADS
from nss_train.model.tokenizer import IGNORED_LABEL

Scores = Callable[[torch.Tensor, torch.Tensor, float], tuple[torch.Tensor, torch.Tensor]]


@dataclass(frozen=True, kw_only=True)
class Head:
    """The output layer of a language model."""

    decoder: PreTrainedModel
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
        chosen = self._hidden(input_ids).flatten(0, 1).index_select(0, learned)
        return _token_losses(chosen, self, targets, CHUNK_TOKENS[chosen.device.type]).sum()

    def row_losses(self, input_ids: torch.Tensor, labels: torch.Tensor, *, prompt: int) -> torch.Tensor:
        """Return each row's sum of the same; shape (rows,). No row's depends on another row.

        ``labels`` (rows, tokens) are -100 where nothing is learned, as the first ``prompt`` tokens are. The
        losses of all others are computed, padding included: the shapes of what is computed do not reveal
        how much is learned.
        """
        first, rows = max(1, prompt), len(input_ids)
        # By places and not by rows: a part then has the same places of each row.
        hidden = self._hidden(input_ids)[:, first - 1 : -1].transpose(0, 1).flatten(0, 1)
        targets = labels[:, first:].T.flatten()
        chunk = max(1, CHUNK_TOKENS[hidden.device.type] // rows) * rows
        losses = _token_losses(hidden, self, targets.clamp(min=0), chunk)
        return losses.masked_fill(targets == IGNORED_LABEL, 0.0).view(-1, rows).sum(0)

    def _hidden(self, input_ids: torch.Tensor) -> torch.Tensor:
        """Return the hidden states after the last layer; shape (rows, tokens, width)."""
        with without_mask(self.decoder.config):
            found: torch.Tensor = self.decoder(input_ids=input_ids, use_cache=False).last_hidden_state
        return found


def _token_losses(hidden: torch.Tensor, head: Head, targets: torch.Tensor, chunk: int) -> torch.Tensor:
    found: torch.Tensor = ChunkedLoss.apply(hidden, head, targets, chunk)  # type: ignore[no-untyped-call]
    return found


class ChunkedLoss(torch.autograd.Function):
    """The cross-entropies of the tokens after hidden states, whose gradients are computed with them.

    The head is frozen, so the gradient of the hidden states is all that is needed later, and it is as small
    as they are.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: torch.Tensor, head: Head, targets: torch.Tensor, chunk: int
    ) -> torch.Tensor:
        """Return those of ``hidden`` (tokens, width) and ``targets`` (tokens,), as float32 (tokens,)."""
        gradient = torch.empty_like(hidden)
        losses = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        # In the hidden states' own precision, which autocast would lower for float32.
        with torch.autocast(hidden.device.type, enabled=False):
            weight = head.weight.to(hidden.dtype)
            # One block of memory for all parts: a new one would be as slow to get as to fill.
            logits = hidden.new_empty(min(chunk, len(hidden)), len(weight))
            for first in range(0, len(hidden), chunk):
                part = slice(first, first + chunk)
                made = torch.mm(hidden[part], weight.T, out=logits[: len(hidden[part])])
                losses[part], slopes = head.scores(made, targets[part], head.divisor)
                torch.mm(slopes, weight, out=gradient[part])
        ctx.save_for_backward(gradient)
        return losses

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the kept gradients times those of the losses."""
        (kept,) = ctx.saved_tensors
        return kept * gradients[0][:, None].to(kept.dtype), None, None, None


def scores(logits: torch.Tensor, targets: torch.Tensor, divisor: float) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the cross-entropies (tokens,) and their gradients by ``logits`` (tokens, vocabulary).

    They are computed in float32: softmax(logits / divisor) minus the target's indicator, over the divisor.
    ``logits`` may be overwritten.
    """
    values, chosen = logits.float(), targets[:, None]
    if divisor != 1.0:
        values.div_(divisor)
    largest = values.amax(1, keepdim=True)
    score = values.gather(1, chosen) - largest
    powers = values.sub_(largest).exp_()
    total = powers.sum(1, keepdim=True)
    losses = (total.log() - score).squeeze(1)
    slopes = powers.div_(total)
    slopes.scatter_add_(1, chosen, torch.full_like(total, -1.0))
    if divisor != 1.0:
        slopes.div_(divisor)
    return losses, slopes.to(logits.dtype)
