"""What would wait for a device, counted where there is none."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from transformers import TrainerCallback

aten = torch.ops.aten
WAITING = {
    aten._local_scalar_dense.default,
    aten.equal.default,
    aten.masked_select.default,
    aten.nonzero.default,
    aten.unique_dim.default,
    aten._unique2.default,
}
"""Operations whose result, or its shape, the processor has to know; ``item`` and ``bool`` are the first."""


class Reads(TorchDispatchMode):
    """A count of the tensors that were read since it began, as if all were on a device."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0
        self._sent: list[torch.Tensor] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        if self._waits(func, args):
            self.count += 1
        return func(*args, **(kwargs or {}))

    def sent(self, tensor: torch.Tensor, *, non_blocking: bool) -> torch.Tensor:
        """Return a copy in the processor's memory: reading it waits for nothing more."""
        self.count += not non_blocking
        self._sent.append(tensor.detach().clone())
        return self._sent[-1]

    def _waits(self, func: Any, args: tuple[Any, ...]) -> bool:
        if func in WAITING:
            return all(args[0] is not one for one in self._sent)
        by_mask = func is aten.index.Tensor and any(
            one is not None and one.dtype is torch.bool for one in args[1]
        )
        return bool(by_mask)


@contextmanager
def counted() -> Iterator[Reads]:
    """Count the reads of a block."""
    reads, to = Reads(), torch.Tensor.to

    def sent_to(self: torch.Tensor, *given: Any, **named: Any) -> torch.Tensor:
        # By its name: a device that is taken from a tensor is the device of this process's tensors.
        if any(isinstance(one, str) and one == "cpu" for one in (*given, *named.values())):
            return reads.sent(self, non_blocking=named.get("non_blocking", False))
        return to(self, *given, **named)

    def cpu(self: torch.Tensor) -> torch.Tensor:
        return reads.sent(self, non_blocking=False)

    with patch.object(torch.Tensor, "to", sent_to), patch.object(torch.Tensor, "cpu", cpu), reads:
        yield reads


class PerStep(TrainerCallback):
    """A callback that notes how much was read during each step, up to the next one's beginning."""

    def __init__(self, reads: Reads) -> None:
        self._reads = reads
        self.found: list[int] = []

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self.found.append(self._reads.count)

    def each(self) -> list[int]:
        return [later - earlier for earlier, later in zip(self.found, self.found[1:], strict=False)]
