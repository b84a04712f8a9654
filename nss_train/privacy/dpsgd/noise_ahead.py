"""Noise that a thread draws for the next step while a GPU computes this one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager

import torch

from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import is_first

WORTH_A_THREAD = 2**20
"""Fewest values of a step that a thread draws: a core draws 30 million normal values per second."""


class NoiseAhead:
    """Standard normal values for one step after the other, drawn by a thread of their own.

    The thread has a key of its own, as two threads must not use one generator. Values that no step takes
    are thrown away. An error of the thread is raised by :meth:`take`.
    """

    def __init__(self, randomness: SecretRandomness, *, values: int, pinned: bool) -> None:
        """Begin to draw the first step's ``values``; ``pinned`` memory is copied to a GPU without a wait."""
        self._randomness, self._values, self._pinned = randomness.another(), values, pinned
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="noise")
        self._next = self._begin()

    def take(self) -> torch.Tensor:
        """Return a step's values, in double precision, and begin to draw the next one's; shape (values,)."""
        drawn = self._next.result()
        self._next = self._begin()
        return drawn

    def close(self) -> None:
        """End the thread."""
        self._thread.shutdown(cancel_futures=True)

    def _begin(self) -> Future[torch.Tensor]:
        return self._thread.submit(self._draw)

    def _draw(self) -> torch.Tensor:
        # New memory each time: the copy of the last values to the GPU may not have happened yet.
        drawn = torch.empty(self._values, dtype=torch.float64, pin_memory=self._pinned)
        self._randomness.fill_gaussian(drawn.numpy())
        return drawn


@contextmanager
def drawing_ahead(
    parameters: Sequence[torch.Tensor], randomness: SecretRandomness
) -> Iterator[NoiseAhead | None]:
    """Draw noise of the parameters' size ahead, where that saves time and this rank adds noise at all.

    On a CPU it saves none: the thread would take a core from the computation.
    """
    values = sum(parameter.numel() for parameter in parameters)
    if values < WORTH_A_THREAD or parameters[0].device.type == "cpu" or not is_first():
        yield None
        return
    ahead = NoiseAhead(randomness, values=values, pinned=parameters[0].device.type == "cuda")
    try:
        yield ahead
    finally:
        ahead.close()
