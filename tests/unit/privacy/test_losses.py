"""Token losses are those of torch, and so are their gradients."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

from nss_train.privacy.dpsgd.gradients.token_losses import TokenLosses


def logits_of(scale: float) -> torch.Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(7, 50, generator=generator)


@pytest.mark.parametrize("scale", [0.01, 1.0, 100.0, 1e4])
def test_losses_and_gradients_are_those_of_torch(scale: float) -> None:
    targets = torch.tensor([3, -100, 0, 49, -100, 7, 7])
    weights = torch.linspace(-1, 2, 7)
    found = []
    for function in (
        lambda logits: functional.cross_entropy(logits, targets, reduction="none"),
        lambda logits: TokenLosses.apply(logits * 1, targets),
    ):
        logits = logits_of(scale).requires_grad_()
        losses = function(logits)
        (losses * weights).sum().backward()
        found.append((losses.detach(), logits.grad))
    (theirs, their_gradient), (ours, our_gradient) = found
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert torch.allclose(our_gradient, their_gradient, rtol=1e-5, atol=1e-6)
