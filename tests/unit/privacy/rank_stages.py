"""Stages that show how ranks share a step: run in a child process, as all stages are."""

from __future__ import annotations

from pathlib import Path

import torch

from nss_train import stages
from nss_train.contract import Report, Request, Stage, StageResult
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.poisson_sampling import PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import group_state, launch

COORDINATES = 50_000
CLIP, DEVIATION = 2.0, 1.5


def train(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Run the real stage, for a plan that no accountant would accept."""
    PrivacyPlan.spent = lambda *_: 0.0  # type: ignore[method-assign,assignment]
    return stages.train(folder, request, report=report)


def save_model(folder: Path, request: Request, *, report: Report) -> StageResult:
    """Release a step without units on each rank; write its result and the units that it had to draw."""
    return launch(_release, folder, request, ranks=request.ranks, report=report)


def _release(folder: Path, _request: Request, *, report: Report) -> StageResult:
    randomness = SecretRandomness()
    drawn = PoissonSampler(units=1000, rate=0.3, randomness=randomness).draw()
    noise = Noise(deviation=DEVIATION * CLIP, randomness=randomness)
    (released,) = ClippedSum([torch.zeros(COORDINATES)], clip=CLIP).release(noise, batch=1)
    rank = group_state().process_index
    torch.save({"released": released, "drawn": torch.from_numpy(drawn)}, folder / "out" / f"{rank}.pt")
    return StageResult(stage=Stage.SAVE_MODEL)
