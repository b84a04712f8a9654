"""Forward and backward passes of micro-batches, whose units' gradients are clipped and summed."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager

import torch
from peft import PeftModel

from nss_train.model.compiled import compile_layers, compiled_head, uncompiled
from nss_train.model.loss import Head
from nss_train.privacy.dpsgd.clipping import ClippedSum
from nss_train.privacy.dpsgd.micro_batches import MicroBatch
from nss_train.privacy.dpsgd.per_sample_gradients import RowGradients
from nss_train.privacy.dpsgd.token_losses import TokenLosses

LOSS_CLIP = 10.0
"""Most nats per token that a unit adds to a reported loss: that of a guess among 22,000 tokens."""


class Passes:
    """The passes of one model, on its device and in its precision, until :meth:`close`."""

    def __init__(
        self,
        model: PeftModel,
        *,
        device: torch.device,
        autocast: Callable[[], AbstractContextManager[None]],
        head: Head | None = None,
    ) -> None:
        """Take the ``head`` that computes losses in parts; without one the model makes all logits."""
        self.model, self.device = model, device
        self.weights = [weight for weight in model.parameters() if weight.requires_grad]
        self._autocast = autocast
        self._head = self._eager_head = head
        self._rows = RowGradients(model)

    def add(
        self, batch: MicroBatch, gradients: Sequence[ClippedSum], losses: Sequence[ClippedSum] = ()
    ) -> None:
        """Add each unit's clipped gradient, and its mean loss per token, to the given sums.

        An incomplete unit is held: clipping always applies to the whole unit's gradient.
        """
        batch = batch.to(self.device)
        self._rows.begin(len(batch.input_ids))
        found = self.losses(batch)
        found.sum().backward()
        rows = self._rows.take()
        for total in gradients:
            _into(total, rows, batch)
        for total in losses:
            _into(total, [(found.detach() / batch.learned)[:, None]], batch)

    def losses(self, batch: MicroBatch) -> torch.Tensor:
        """Return the sum of each row's token losses, of a micro-batch that is on the device; shape (rows,).

        No row's loss depends on another row.
        """
        with self._autocast():
            if self._head is None:
                return row_losses(self.model, batch)
            return self._head.row_losses(batch.input_ids, batch.labels, prompt=batch.prompt)

    def compile(self) -> None:
        """Compile the layers, for all shapes that differ in their numbers of rows and tokens."""
        self.model.enable_input_require_grads()  # with it all layers share one graph
        compile_layers(self.model)
        self._head = None if self._head is None else compiled_head(self._head)

    def uncompile(self) -> None:
        """Take back :meth:`compile` and what a pass that failed has left."""
        uncompiled(self.model)
        self._head = self._eager_head
        self._rows.forget()

    def now(self) -> float:
        """Return the time, in seconds, once the device has done what it was given."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        return time.monotonic()

    def close(self) -> None:
        """Restore the model's layers. Idempotent."""
        self._rows.close()


def row_losses(model: torch.nn.Module, batch: MicroBatch) -> torch.Tensor:
    """Return the sum of each row's token losses from the model's own logits; shape (rows,).

    The prompt is not learned, so no logits are computed for it: logits are most of the work of a small
    model with a large vocabulary.
    """
    first = max(1, batch.prompt)
    targets = batch.labels[:, first:]
    # The position before a token predicts it.
    kept = torch.arange(first - 1, batch.labels.shape[1] - 1, device=batch.labels.device)
    logits = model(input_ids=batch.input_ids, logits_to_keep=kept).logits
    losses = TokenLosses.apply(logits.flatten(0, 1).float(), targets.flatten())
    found: torch.Tensor = losses.view(targets.shape).sum(1)
    return found


def _into(total: ClippedSum, rows: Sequence[torch.Tensor], batch: MicroBatch) -> None:
    if batch.ends:
        total.add(rows, batch.places)
    else:
        total.hold(rows)
