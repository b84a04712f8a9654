"""The loop of a private training on a plain linear layer, without a trainer or a language model."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pytest
import torch
from scipy import stats
from torch import nn
from torch.optim import SGD
from torch.optim.lr_scheduler import ConstantLR

from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.audit.faults import FAULTS
from nss_train.privacy.audit.observations import MakeMechanism, real
from nss_train.privacy.dpsgd.gradients.clipping import RowResults
from nss_train.privacy.dpsgd.gradients.per_sample_gradients import RowGradients
from nss_train.privacy.dpsgd.loop import Descent, train_privately
from nss_train.privacy.dpsgd.mechanism import LossSum, Mechanism
from nss_train.privacy.dpsgd.poisson_sampling import Indices, PoissonSampler
from nss_train.privacy.dpsgd.randomness import SecretRandomness

from .plans import plan

ROWS = {0: 1, 1: 3, 2: 1, 3: 2, 4: 5}
"""Rows of each unit."""
LONGEST = 4
"""Most rows of a micro-batch: the last unit needs two."""
BATCH = 8.0
STEPS = 3
ROUNDING = 1e-6
FALSE_ALARM = 1e-6


def planned(noise: float) -> PrivacyPlan:
    """Return a plan in which every step draws every unit; half of the units' gradients are clipped."""
    changes = {
        "noise_multiplier": noise,
        "sampling_rate": 1.0,
        "batch": BATCH,
        "units": len(ROWS),
        "clip": 5.0,
    }
    return plan().model_copy(update=changes | {"steps": STEPS})


@dataclass(frozen=True, kw_only=True)
class Regression:
    """A linear layer, and for each unit rows of inputs with wanted outputs."""

    layer: nn.Linear
    inputs: dict[int, torch.Tensor]
    wanted: dict[int, torch.Tensor]
    taken: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, width: int) -> Regression:
        generator = torch.Generator().manual_seed(7)
        layer = nn.Linear(width, width, bias=False)
        nn.init.normal_(layer.weight, std=1 / width, generator=generator)
        shapes = {unit: (rows, 1, width) for unit, rows in ROWS.items()}
        return cls(
            layer=layer,
            inputs={unit: torch.randn(shape, generator=generator) for unit, shape in shapes.items()},
            wanted={unit: unit * torch.randn(shape, generator=generator) for unit, shape in shapes.items()},
        )

    def weight(self) -> torch.Tensor:
        return self.layer.weight.detach().clone()

    def losses(self, inputs: torch.Tensor, wanted: torch.Tensor) -> torch.Tensor:
        return (self.layer(inputs) - wanted).square().mean((1, 2))

    def micro_batches(
        self, units: Indices
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]]:
        """Yield the first two units together, the next ones alone, the last one in two parts."""
        for group in [units[:2], *np.split(units[2:], range(1, len(units[2:])))]:
            inputs, wanted = (
                torch.cat([side[unit] for unit in group]) for side in (self.inputs, self.wanted)
            )
            places = torch.repeat_interleave(torch.tensor([ROWS[unit] for unit in group]))
            for first in range(0, len(inputs), LONGEST):
                part = slice(first, first + LONGEST)
                yield inputs[part], wanted[part], places[part], part.stop >= len(inputs)

    def train(self, mechanism: Mechanism, steps: int = STEPS) -> list[torch.Tensor]:
        """Train with a learning rate of 1; return the weights before the first step and after each."""
        rows, weights, left = RowGradients(self.layer), [self.weight()], iter(range(steps))
        optimizer = SGD([self.layer.weight], lr=1.0)

        def gradients(batch: tuple[torch.Tensor, torch.Tensor, torch.Tensor, bool]) -> RowResults:
            inputs, wanted, places, ends = batch
            rows.begin(len(inputs))
            losses = self.losses(inputs, wanted)
            losses.sum().backward()
            return RowResults(gradients=rows.take(), losses=losses.detach(), places=places, ends=ends)

        def may_begin() -> bool:
            self.taken.append("paid")
            return next(left, None) is not None

        def after_step(loss: torch.Tensor | None) -> None:
            self.taken.append("step" if loss is None else f"step of loss {float(loss):.4f}")
            weights.append(self.weight())

        train_privately(
            mechanism,
            self.micro_batches,
            gradients,
            Descent(
                weights=[self.layer.weight],
                optimizer=optimizer,
                schedule=ConstantLR(optimizer, factor=1.0, total_iters=1),
            ),
            begin_step=may_begin,
            after_step=after_step,
        )
        rows.close()
        return weights

    def clipped_mean(self, weight: torch.Tensor, clip: float) -> torch.Tensor:
        """Return what a step has to subtract, computed unit by unit as the definition says."""
        total = torch.zeros_like(weight)
        for unit in ROWS:
            there = weight.clone().requires_grad_()
            found = self.inputs[unit] @ there.T - self.wanted[unit]
            found.square().mean((1, 2)).sum().backward()
            assert there.grad is not None
            total += there.grad * min(1.0, clip / float(there.grad.norm()))
        return total / BATCH


def check_means(make: MakeMechanism) -> None:
    """Assert that a training without noise follows the mean of the units' clipped gradients."""
    regression, planned_without = Regression.of(3), planned(0.0)
    weights = regression.train(make(planned_without, [regression.layer.weight]))
    for before, after in pairwise(weights):
        wanted = regression.clipped_mean(before, planned_without.clip)
        assert torch.allclose(before - after, wanted, rtol=ROUNDING, atol=ROUNDING)


def check_noise(make: MakeMechanism) -> None:
    """Assert that each step adds normal noise of the planned deviation, drawn anew for each value."""
    regression, noisy = Regression.of(100), planned(2.0)
    weights = regression.train(make(noisy, [regression.layer.weight]))
    noise = []
    for before, after in pairwise(weights):
        drawn = before - after - regression.clipped_mean(before, noisy.clip)
        noise.append(drawn.flatten().double().numpy() * BATCH / (noisy.noise_multiplier * noisy.clip))
    spread = sum(float((one**2).sum()) for one in noise)
    assert FALSE_ALARM < stats.chi2(sum(one.size for one in noise)).sf(spread) < 1 - FALSE_ALARM
    assert stats.kstest(np.concatenate(noise), "norm").pvalue > FALSE_ALARM
    assert stats.pearsonr(noise[0], noise[1]).pvalue > FALSE_ALARM


def test_without_noise_a_step_is_the_mean_of_the_units_clipped_gradients() -> None:
    check_means(real)


@pytest.mark.parametrize("fault", ["no clip", "clip of rows", "divided by the drawn size"])
def test_a_loop_that_does_not_clip_whole_units_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        check_means(FAULTS[fault])


def test_each_step_adds_the_planned_noise_to_each_weight() -> None:
    check_noise(real)


@pytest.mark.parametrize(
    "fault",
    ["no noise", "half the noise", "noise of every rank", "the same noise in every step"],
)
def test_a_loop_without_the_planned_noise_is_noticed(fault: str) -> None:
    with pytest.raises(AssertionError):
        check_noise(FAULTS[fault])


def test_some_units_are_clipped_and_some_are_not() -> None:
    regression = Regression.of(3)
    clip = planned(0.0).clip
    clipped, whole, short = (
        regression.clipped_mean(regression.weight(), most) for most in (clip, math.inf, clip / 1e6)
    )
    assert not torch.allclose(clipped, whole)
    assert not torch.allclose(clipped, 1e6 * short)


def test_each_step_is_paid_for_before_its_units_are_drawn() -> None:
    regression = Regression.of(3)

    class Noted(PoissonSampler):
        def draw(self) -> Indices:
            regression.taken.append("drawn")
            return super().draw()

    noted = Noted(units=len(ROWS), rate=1.0, randomness=SecretRandomness())
    regression.train(replace(real(planned(0.0), [regression.layer.weight]), sampler=noted), steps=2)
    assert regression.taken == ["paid", "drawn", "step"] * 2 + ["paid"]


def test_a_training_that_is_not_paid_for_leaves_the_weights_alone() -> None:
    regression = Regression.of(3)
    before = regression.weight()
    assert len(regression.train(real(planned(1.0), [regression.layer.weight]), steps=0)) == 1
    assert torch.equal(before, regression.layer.weight)


def test_a_reported_loss_is_the_mean_of_the_units_losses_with_noise_of_its_own() -> None:
    regression, without = Regression.of(3), planned(0.0)
    loss = sum(
        float(
            regression.losses(regression.inputs[unit], regression.wanted[unit]).sum().detach().clamp(max=10.0)
        )
        for unit in ROWS
    )
    secret = SecretRandomness()
    mechanism = Mechanism.of(
        without,
        [regression.layer.weight],
        units=len(ROWS),
        randomness=secret,
        losses=LossSum.of(without, device=torch.device("cpu"), randomness=secret, slack=0.0),
    )
    regression.train(mechanism, steps=1)
    assert regression.taken == ["paid", f"step of loss {loss / BATCH:.4f}", "paid"]
