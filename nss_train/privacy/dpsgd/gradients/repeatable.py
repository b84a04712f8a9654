"""Kernels that give the same bits for the same rows each time."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

_CUBLAS = "CUBLAS_WORKSPACE_CONFIG"
_FIXED_WORKSPACE = ":4096:8"
"""One of the two workspaces with which torch takes cuBLAS' products for repeatable."""
_NO_SUCH_KERNEL = "does not have a deterministic implementation"


@contextmanager
def repeatable_kernels(device: torch.device) -> Iterator[None]:
    """Let a CUDA device take deterministic kernels alone; elsewhere kernels are so anyway.

    The fast backward pass of attention adds its blocks in the order in which they happen to end. Whether that
    order follows from other rows nobody knows, and a coupling could hide behind it: in bfloat16, gradients of
    a model of 3 G moved by 2% of the clip on an H200. torch raises ``RuntimeError`` for an operation that has
    no deterministic kernel.
    """
    if device.type != "cuda":
        yield
        return
    os.environ.setdefault(_CUBLAS, _FIXED_WORKSPACE)
    was, warned = (
        torch.are_deterministic_algorithms_enabled(),
        torch.is_deterministic_algorithms_warn_only_enabled(),
    )
    tensors: Any = torch.utils.deterministic  # its only attribute is a property that mypy does not see
    filled = tensors.fill_uninitialized_memory
    torch.use_deterministic_algorithms(mode=True)
    # It would write every new tensor once more, to show errors that a test would find.
    tensors.fill_uninitialized_memory = False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(was, warn_only=warned)
        tensors.fill_uninitialized_memory = filled


def lacks_repeatable_kernel(error: RuntimeError) -> bool:
    """Tell whether torch refused an operation because its results differ from time to time."""
    return _NO_SUCH_KERNEL in str(error)
