"""The mechanism of a private step, as planned: a training takes it, and an audit examines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd.clipping import ClippedSum, Noise
from nss_train.privacy.dpsgd.noise_ahead import NoiseAhead
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """The mechanism of each step: draw units, sum their clipped gradients, release the noisy sum."""

    sampler: PoissonSampler
    gradients: ClippedSum
    noise: Noise
    batch: float
    """Divisor of a released sum."""

    @classmethod
    def of(
        cls,
        plan: PrivacyPlan,
        parameters: Sequence[torch.Tensor],
        *,
        units: int,
        randomness: SecretRandomness,
        slack: float = 0.0,
        ahead: NoiseAhead | None = None,
    ) -> Self:
        """Return the mechanism whose cost the plan has computed.

        ``slack`` is the share of C by which one unit may move the sum besides its own gradient: the noise
        grows by it, so σ, and with it ε, stays as planned. Noise may be drawn ``ahead``.
        """
        return cls(
            sampler=PoissonSampler(units=units, rate=plan.sampling_rate, randomness=randomness),
            gradients=ClippedSum(parameters, clip=plan.clip),
            noise=Noise(
                deviation=plan.gradient_noise * plan.clip * (1 + slack), randomness=randomness, ahead=ahead
            ),
            batch=plan.batch,
        )

    def draw(self) -> Indices:
        """Draw the units of the next step; shape (drawn,)."""
        return self.sampler.draw()

    def release(self) -> list[torch.Tensor]:
        """Return the step's noisy gradient, in the parameters' shapes."""
        return self.gradients.release(self.noise, batch=self.batch)
