"""The mechanism of a private step, as the plan wants it: what a training takes and an audit examines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """Draw units, add up their clipped gradients, release the noisy sum; again for each step."""

    sampler: PoissonSampler
    gradients: ClippedSum
    noise: Noise
    batch: float
    """What a released sum is divided by."""

    @classmethod
    def of(
        cls,
        plan: PrivacyPlan,
        parameters: Sequence[torch.Tensor],
        *,
        units: int,
        randomness: SecretRandomness,
        slack: float = 0.0,
    ) -> Self:
        """The one whose cost the plan has computed.

        ``slack`` is the share of C by which one unit may move the sum besides its own gradient: the noise
        grows by it, so that σ, and with it ε, stays what the plan says.
        """
        return cls(
            sampler=PoissonSampler(units=units, rate=plan.sampling_rate, randomness=randomness),
            gradients=ClippedSum(parameters, clip=plan.clip),
            noise=Noise(deviation=plan.gradient_noise * plan.clip * (1 + slack), randomness=randomness),
            batch=plan.batch,
        )

    def draw(self) -> Indices:
        """The units of the next step; shape (drawn,)."""
        return self.sampler.draw()

    def release(self) -> list[torch.Tensor]:
        """The step's gradient, of the parameters' shapes."""
        return self.gradients.release(self.noise, batch=self.batch)
