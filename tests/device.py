"""The memory and the processes that the driver sees on the CUDA devices."""

from __future__ import annotations

import subprocess
import time
from dataclasses import dataclass

_MEMORY = ("nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits")
_PROCESSES = ("nvidia-smi", "--query-compute-apps=pid", "--format=csv,noheader")
_NOISE_MIB = 64
"""The driver's own use of a device varies by a few MiB."""


@dataclass(frozen=True, kw_only=True)
class Held:
    """What is held of all devices together."""

    used_mib: int
    processes: frozenset[int]
    """Process ids as the driver knows them; in a container they may be the host's, or hidden."""

    def exceeds(self, before: Held) -> bool:
        """Tell whether something is held that was not held before."""
        return bool(self.processes - before.processes) or self.used_mib > before.used_mib + _NOISE_MIB


def held() -> Held:
    """Ask the driver. Raises ``FileNotFoundError`` where its program is not installed."""
    return Held(used_mib=sum(_numbers(_MEMORY)), processes=frozenset(_numbers(_PROCESSES)))


def held_in_the_end(before: Held, *, within_s: float = 20.0) -> Held:
    """Return what is held once that is no more than ``before``, or when the time is over."""
    deadline = time.monotonic() + within_s
    while (now := held()).exceeds(before) and time.monotonic() < deadline:
        pass  # each look takes the driver a while
    return now


def _numbers(command: tuple[str, ...]) -> list[int]:
    answer = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30).stdout
    return [int(line) for line in answer.splitlines() if line.strip().isdigit()]
