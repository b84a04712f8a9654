"""The options of one run of a trainer, whichever trainer it is."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from nss_train.contract import Kernels, Report
from nss_train.training.checkpoint import Checkpoints


@dataclass(frozen=True, kw_only=True, slots=True)
class RunOptions:
    """Where a run writes, what it reports, where it begins, and when it has to end."""

    output: Path
    seed: int
    """Seed of shuffles and dropout. Nothing that must be secret depends on it."""
    checkpointing: bool
    """Whether activations are recomputed instead of kept."""
    report: Report
    max_seconds: float | None = None
    reporters: tuple[str, ...] = ()
    halvings: int = 0
    """How often the micro-batch was halved because memory had run out."""
    fsdp: bool = False
    kernels: Kernels = field(default_factory=Kernels)
    checkpoints: Checkpoints | None = None
    resume_from: Path | None = None
    """Folder that ``checkpoints`` kept: the run continues as if it had never stopped."""

    @property
    def keeping(self) -> list[Checkpoints]:
        """Return the callbacks that keep checkpoints: one or none."""
        return [] if self.checkpoints is None else [self.checkpoints]
