"""The loop of a private training, which is DP-SGD (Abadi et al. 2016, arXiv 1607.00133, algorithm 1).

It needs no trainer: it works on any weights, batches and passes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from nss_train.privacy.dpsgd.gradients.clipping import RowResults
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.poisson_sampling import Indices, of_this_rank

Batch = TypeVar("Batch")


@dataclass(frozen=True, kw_only=True, slots=True)
class Descent:
    """The optimizer of some weights, and the schedule of its learning rate."""

    weights: Sequence[torch.Tensor]
    optimizer: Optimizer
    schedule: LRScheduler

    def step(self, gradient: Sequence[torch.Tensor]) -> None:
        """Move the weights against ``gradient``, which has one tensor for each."""
        for weight, part in zip(self.weights, gradient, strict=True):
            weight.grad = part.to(weight.dtype)
        self.optimizer.step()
        self.schedule.step()
        self.optimizer.zero_grad()


def train_privately(
    mechanism: Mechanism,
    micro_batches: Callable[[Indices], Iterable[Batch]],
    gradients: Callable[[Batch], RowResults],
    descent: Descent,
    *,
    begin_step: Callable[[], bool],
    after_step: Callable[[torch.Tensor | None], None],
) -> None:
    """Take private steps while ``begin_step`` allows another one and has paid for it.

    ``micro_batches`` divides units into batches that fit into memory; ``gradients`` computes the gradient
    of each row of one. ``after_step`` gets the step's loss, if the mechanism reports it.
    """
    while begin_step():
        lot = mechanism.draw()
        for batch in micro_batches(of_this_rank(lot)):
            mechanism.add_clipped(gradients(batch))
        descent.step(mechanism.release())
        after_step(mechanism.release_loss())
