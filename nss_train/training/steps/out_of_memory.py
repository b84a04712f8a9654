"""Out-of-memory errors of all kinds as this library's own error."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from nss_train.errors import OutOfMemory

_ALLOCATORS_SAY = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")
"""Parts of the messages of CUDA, of the CPU allocator, and of cuBLAS, which raise a bare RuntimeError."""


@contextmanager
def typed_out_of_memory() -> Iterator[None]:
    """Turn any way of running out of memory inside the block into :class:`OutOfMemory`."""
    try:
        yield
    except (MemoryError, torch.OutOfMemoryError) as error:
        raise OutOfMemory(f"Out of memory while training: {error}") from error
    except RuntimeError as error:
        if any(part in str(error) for part in _ALLOCATORS_SAY):
            raise OutOfMemory(f"Out of memory while training: {error}") from error
        raise
