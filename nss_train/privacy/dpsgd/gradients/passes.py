"""Forward and backward passes of micro-batches, which give each row's gradient and loss."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager

import torch
from peft import PeftModel

from nss_train.model.layers.compiled import compile_layers, compiled_head, uncompiled
from nss_train.model.layers.loss import Head
from nss_train.privacy.dpsgd.gradients.clipping import RowResults
from nss_train.privacy.dpsgd.gradients.micro_batches import MicroBatch
from nss_train.privacy.dpsgd.gradients.per_sample_gradients import RowGradients
from nss_train.privacy.dpsgd.gradients.token_losses import TokenLosses


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

    def gradients(self, batch: MicroBatch) -> RowResults:
        """Return the gradient of each row's loss, and the row's part of its unit's mean loss per token."""
        batch = batch.to(self.device)
        self._rows.begin(len(batch.input_ids))
        losses = self.losses(batch)
        losses.sum().backward()
        return RowResults(
            gradients=self._rows.take(),
            losses=losses.detach() / batch.learned,
            places=batch.places,
            ends=batch.ends,
        )

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
