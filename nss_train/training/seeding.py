"""The global random generators, seeded for a while: what they draw then is public."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch


@contextmanager
def public_luck(seed: int) -> Iterator[None]:
    """Seed the global random generators, and restore their states afterwards."""
    kept = random.getstate(), np.random.get_state()
    # Only this process's device: a look at another one would begin to use it.
    with torch.random.fork_rng([torch.cuda.current_device()] if torch.cuda.is_available() else []):
        random.seed(seed)
        np.random.seed(seed)
        torch.manual_seed(seed)
        try:
            yield
        finally:
            random.setstate(kept[0])
            np.random.set_state(kept[1])
