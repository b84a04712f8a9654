"""Gradients of single rows, which backpropagation usually sums."""

from __future__ import annotations

from typing import cast

import torch
from torch import nn

from nss_train.errors import ParameterError, Problem


class RowLinear(nn.Linear):
    """A linear layer that may compute each row of its input with a weight of the row's own.

    These weights have equal values, and the gradient of each is that of its row alone.
    """

    path: str
    """The layer's name in its model."""
    rows: torch.Tensor | None
    """The rows' weights, of shape (rows, out, in); ``None`` where all rows share :attr:`weight`."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.rows is None:
            return super().forward(x)
        if x.dim() != 3 or len(x) != len(self.rows):
            raise _not_by_rows(self.path, f"gets an input of shape {tuple(x.shape)}")
        return torch.bmm(x, self.rows.transpose(1, 2))


class RowGradients:
    """The trained weights of a model, the LoRA factors, each with a gradient per row, until :meth:`close`.

    The loss must be a sum over rows. Layers may be recomputed in any way: between :meth:`begin` and
    :meth:`take` each of them has the same weights of rows. At all other times the model computes as ever.
    """

    def __init__(self, model: nn.Module) -> None:
        """Find the layers; raise :class:`ParameterError` for a trained weight that is in no linear layer."""
        named = [
            (path, layer)
            for path, layer in model.named_modules()
            if type(layer) is nn.Linear and layer.weight.requires_grad
        ]
        found = [layer.weight for _, layer in named]
        trained = {name: weight for name, weight in model.named_parameters() if weight.requires_grad}
        for at, (name, weight) in enumerate(trained.items()):
            if at >= len(found) or found[at] is not weight:
                raise _not_by_rows(name, "is no weight of a linear layer of its own")
        self._layers = [_by_rows(path, layer) for path, layer in named]

    def begin(self, rows: int) -> None:
        """Give each of ``rows`` rows its own weights, for the next forward and backward pass."""
        for layer in self._layers:
            # A view: the values are stored once.
            layer.rows = layer.weight.detach().expand(rows, -1, -1).requires_grad_()

    def take(self) -> list[torch.Tensor]:
        """Return the gradients of the pass, one tensor of shape (rows, out, in) per weight, and end it."""
        given = [None if layer.rows is None else layer.rows.grad for layer in self._layers]
        found = [gradient for gradient in given if gradient is not None]
        self.forget()
        if len(found) < len(given):
            raise RuntimeError("a trained weight has no gradient for each row: the guarantee would not hold")
        return found

    def forget(self) -> None:
        """End a pass, if there is one, without its gradients."""
        for layer in self._layers:
            layer.rows = None

    def close(self) -> None:
        """Restore the model's layers. Idempotent."""
        self.forget()
        for layer in self._layers:
            del layer.path, layer.rows
            _become(layer, nn.Linear)
        self._layers = []


def _by_rows(path: str, layer: nn.Linear) -> RowLinear:
    """Make a layer a :class:`RowLinear` in place, so that its name and its weight stay."""
    _become(layer, RowLinear)
    found = cast("RowLinear", layer)
    found.path, found.rows = path, None
    return found


def _become(layer: nn.Linear, kind: type[nn.Linear]) -> None:
    layer.__class__ = kind


def _not_by_rows(path: str, what: str) -> ParameterError:
    remedy = f"{path} {what}, so that it has no gradient for each row; adapt other layers"
    problem = Problem(field="training.lora_target_modules", value=path, remedy=remedy)
    return ParameterError("The base model cannot be trained privately.", [problem])
