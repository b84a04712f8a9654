"""The mechanism of a private step, as planned: a training takes it, and an audit examines it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

import torch

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.dpsgd.gradients.clipping import ClippedSum, Noise, RowResults
from nss_train.privacy.dpsgd.noise_ahead import NoiseAhead
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness

if TYPE_CHECKING:
    from nss_train.privacy.dpsgd.canaries import Canaries

LOSS_CLIP = 10.0
"""Most nats per token that a unit adds to a reported loss: that of a guess among 22,000 tokens."""


@dataclass(frozen=True, kw_only=True, slots=True)
class LossSum:
    """The sum of a step's unit losses, each clipped to :data:`LOSS_CLIP`, and the noise of its release."""

    total: ClippedSum
    noise: Noise

    @classmethod
    def of(
        cls, plan: PrivacyPlan, *, device: torch.device, randomness: SecretRandomness, slack: float
    ) -> Self:
        """Return the sum as planned; without noise where losses are published outside the guarantee."""
        deviation = plan.loss_noise * LOSS_CLIP * (1 + slack) if plan.report_loss else 0.0
        return cls(
            total=ClippedSum([torch.zeros(1, device=device)], clip=LOSS_CLIP),
            noise=Noise(deviation=deviation, randomness=randomness),
        )

    def release(self, *, batch: float) -> torch.Tensor:
        """Return the noisy mean loss per token of a step's units."""
        return self.total.release(self.noise, batch=batch)[0]


@dataclass(frozen=True, kw_only=True, slots=True)
class Mechanism:
    """The mechanism of each step: draw units, sum their clipped gradients, release the noisy sum."""

    sampler: PoissonSampler
    gradients: ClippedSum
    noise: Noise
    batch: float
    """Divisor of a released sum."""
    losses: LossSum | None = None
    """The sum of the units' losses, where these are reported."""
    canaries: Canaries | None = None
    """Invented units that join each step, in an audit of a whole training."""

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
        losses: LossSum | None = None,
        canaries: Canaries | None = None,
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
            losses=losses,
            canaries=canaries,
        )

    def draw(self) -> Indices:
        """Draw the units of the next step; shape (drawn,)."""
        return self.sampler.draw()

    def add_clipped(self, rows: RowResults) -> None:
        """Clip each unit's gradient, and its loss if losses are reported; add them to the step's sums."""
        rows.add_gradients_to(self.gradients)
        if self.losses is not None:
            rows.add_losses_to(self.losses.total)

    def release(self) -> list[torch.Tensor]:
        """Return the step's noisy mean gradient, in the parameters' shapes."""
        if self.canaries is None:
            return self.gradients.release(self.noise, batch=self.batch)
        self.canaries.join(self.gradients)
        released = self.gradients.release(self.noise, batch=self.batch)
        self.canaries.see(released)
        return released

    def release_loss(self) -> torch.Tensor | None:
        """Return the step's noisy mean loss; ``None`` where losses are not reported."""
        return None if self.losses is None else self.losses.release(batch=self.batch)
