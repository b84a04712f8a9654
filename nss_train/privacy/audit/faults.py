"""Known mistakes of private trainings, planted on purpose: an audit must find each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.observations import MakeMechanism, real
from nss_train.privacy.audit.verdict import Verdict, audit
from nss_train.privacy.dpsgd.gradients.clipping import STEPS_PER_CLIP, ClippedSum, Noise
from nss_train.privacy.dpsgd.mechanism import Mechanism
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler

RUNS_OF_FAULTS = 200
"""Runs that suffice to see a fault; clearing an honest mechanism takes more."""

Parameters = Sequence[torch.Tensor]


def planted(runs: int = RUNS_OF_FAULTS) -> dict[str, Verdict]:
    """Return the audit's verdict on each fault."""
    return {name: audit(make, runs=runs) for name, make in FAULTS.items()}


class NoisePerRank(Noise):
    """Noise that two ranks add, each in full."""

    def draw(self, total: torch.Tensor) -> torch.Tensor:
        return super().draw(total) + super().draw(total)


class PublicNoise(Noise):
    """Noise from the generator that the job has seeded."""

    def draw(self, total: torch.Tensor) -> torch.Tensor:
        return self.deviation * torch.randn_like(total)


class OneNoise(Noise):
    """Noise of one number for all values."""

    def draw(self, total: torch.Tensor) -> torch.Tensor:
        return super().draw(total[:1]).expand_as(total)


@dataclass(frozen=True, kw_only=True)
class StaleNoise(Noise):
    """Noise that is drawn only once."""

    kept: list[torch.Tensor] = field(default_factory=list)

    def draw(self, total: torch.Tensor) -> torch.Tensor:
        self.kept[:] = self.kept or [super().draw(total)]
        return self.kept[0]


class Unclipped(ClippedSum):
    """A sum that clips no gradient."""

    def _scale(self, squares: torch.Tensor) -> torch.Tensor:
        return torch.full_like(squares, STEPS_PER_CLIP / self._clip)


class ClipOfRows(ClippedSum):
    """A sum that clips each example of a unit separately."""

    def add(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> None:
        super().add(rows, torch.arange(len(places)))


class ClipOfTensors(ClippedSum):
    """A sum that clips each parameter's gradient separately."""

    def add(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> None:
        for kept in range(len(rows)):
            alone = [row if at == kept else torch.zeros_like(row) for at, row in enumerate(rows)]
            super().add(alone, places)


class DividedByDrawn(ClippedSum):
    """A sum that is divided by the number of units actually drawn."""

    _drawn = 0

    def add(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> None:
        self._drawn += int(places.max()) + 1
        super().add(rows, places)

    def release(self, noise: Noise, *, batch: float) -> list[torch.Tensor]:
        drawn, self._drawn = self._drawn, 0
        return super().release(noise, batch=float(drawn or batch))


class FixedSize(PoissonSampler):
    """A sampler that draws the same number of units in each step."""

    def draw(self) -> Indices:
        return np.sort(np.random.default_rng().permutation(self._units)[: int(self._units * self._rate)])


class Shuffled(PoissonSampler):
    """A sampler that shuffles all units and cuts them into batches, again in each pass."""

    _left: Indices = np.empty(0, dtype=np.int64)

    def draw(self) -> Indices:
        if not len(self._left):
            self._left = np.random.default_rng().permutation(self._units)
        cut = int(self._units * self._rate)
        drawn, self._left = self._left[:cut], self._left[cut:]
        return np.sort(drawn)


class PublicDraws(PoissonSampler):
    """A sampler that draws from the generator that the job has seeded."""

    def draw(self) -> Indices:
        return np.flatnonzero(np.random.random(self._units) < self._rate)


class Copies(PoissonSampler):
    """A sampler of data that holds each unit twice, as two units."""

    def draw(self) -> Indices:
        return np.sort(np.concatenate([super().draw(), super().draw()]))


def _with_noise(kind: type[Noise], *, scale: float = 1.0) -> MakeMechanism:
    def make(plan: PrivacyPlan, parameters: Parameters) -> Mechanism:
        true = real(plan, parameters)
        noise = kind(deviation=scale * true.noise.deviation, randomness=true.noise.randomness)
        return replace(true, noise=noise)

    return make


def _with_sum(kind: type[ClippedSum]) -> MakeMechanism:
    def make(plan: PrivacyPlan, parameters: Parameters) -> Mechanism:
        return replace(real(plan, parameters), gradients=kind(parameters, clip=plan.clip))

    return make


def _with_sampler(kind: type[PoissonSampler], *, scale: float = 1.0) -> MakeMechanism:
    def make(plan: PrivacyPlan, parameters: Parameters) -> Mechanism:
        true = real(plan, parameters)
        rate = scale * plan.sampling_rate
        sampler = kind(units=plan.units, rate=rate, randomness=true.noise.randomness)
        return replace(true, sampler=sampler)

    return make


FAULTS: dict[str, MakeMechanism] = {
    "no noise": _with_noise(Noise, scale=0.0),
    "half the noise": _with_noise(Noise, scale=0.5),
    "noise of every rank": _with_noise(NoisePerRank),
    "noise from a public seed": _with_noise(PublicNoise),
    "the same noise in every step": _with_noise(StaleNoise),
    "the same noise for all values": _with_noise(OneNoise),
    "no clip": _with_sum(Unclipped),
    "clip of rows": _with_sum(ClipOfRows),
    "clip of tensors": _with_sum(ClipOfTensors),
    "divided by the drawn size": _with_sum(DividedByDrawn),
    "shuffled": _with_sampler(Shuffled),
    "batches of fixed size": _with_sampler(FixedSize),
    "draws from a public seed": _with_sampler(PublicDraws),
    "units drawn twice as often": _with_sampler(PoissonSampler, scale=2.0),
    "units copied": _with_sampler(Copies),
}
