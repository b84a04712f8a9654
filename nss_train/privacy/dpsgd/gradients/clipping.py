"""The private gradient of a step: clip each unit's gradient, sum, add noise once, divide by a constant."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from nss_train.privacy.dpsgd.noise_ahead import NoiseAhead
from nss_train.privacy.dpsgd.poisson_sampling import from_first_rank
from nss_train.privacy.dpsgd.randomness import SecretRandomness
from nss_train.training.ranks.group import group_state, is_first

GRID = 2.0**-20
"""Grid of noisy sums: they are multiples of this many standard deviations of the noise.

The lowest bits of a floating-point sum can reveal it (Mironov 2012, "On significance
of the least significant bits for differential privacy"). The noise has 2^52 possible values per power
of two, so each multiple of the grid can be reached in about 2^32 ways, whatever the sum was.
"""
STEPS_PER_CLIP = 2**30
"""Clipped gradients are integer multiples of C / 2^30, so their sum is exact in any order.

A floating-point sum is not: one more unit can change it by more than its norm (Casacuberta et al. 2022,
arXiv 2207.10635). A coordinate of one unit is at most 2^30, so 2^33 units fit into 64 bits: more than a
table may have rows.
"""
ROUNDING = 2.0**-20
"""Share of C reserved for rounding errors, at most 2^-22.5: the squared norm (summed in float64, whose own
error is below 2^-29 for 2^24 values), the factor and the product are each rounded to float32, by 2^-24."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Noise:
    """Gaussian noise of a given standard deviation, from a secret source."""

    deviation: float
    randomness: SecretRandomness
    ahead: NoiseAhead | None = None
    """Values drawn ahead, if any; then ``randomness`` draws none."""

    def draw(self, total: torch.Tensor) -> torch.Tensor:
        """Return noise for each value of ``total``, in double precision."""
        if self.ahead is None:
            drawn = torch.from_numpy(self.randomness.gaussian(total.numel()))
        else:
            drawn = self.ahead.take()
        return self.deviation * drawn.to(total.device, non_blocking=True).view_as(total)

    def on_grid(self, noisy: torch.Tensor) -> torch.Tensor:
        """Return the nearest multiples of the grid."""
        grid = self.deviation * GRID
        return torch.round(noisy / grid) * grid if grid else noisy


class ClippedSum:
    """The sum of a step's unit gradients, each clipped to an ℓ2 norm of ``clip`` over all parameters.

    ``rows`` of gradients come as one tensor per parameter, of shape (rows, *parameter's shape), with the
    place of each row's unit among the units of the same call, ascending and on the CPU. All rows of a unit
    come in one call, or it is alone in several: :meth:`hold` for all but the last. A unit's result depends
    on its own rows and on the number of rows, by which kernels are chosen.

    The gradients are copied into one tensor of shape (rows, values): operations on hundreds of small tensors
    would take longer than the rest of a step on a GPU.
    """

    def __init__(self, parameters: Sequence[torch.Tensor], *, clip: float) -> None:
        self._clip = clip
        self._shapes = [parameter.shape for parameter in parameters]
        values = sum(parameter.numel() for parameter in parameters)
        self._sum = torch.zeros(values, dtype=torch.int64, device=parameters[0].device)
        # Rounding each of d values moves the vector by at most half a step times √d.
        self._longest = STEPS_PER_CLIP * (1 - ROUNDING) - 0.5 * math.sqrt(values)
        self._held: torch.Tensor | None = None

    def hold(self, rows: Sequence[torch.Tensor]) -> None:
        """Keep the sum of these rows for the first unit of the next :meth:`add`; it is clipped there."""
        more = _flat(rows).sum(0)
        self._held = more if self._held is None else self._held.add_(more)

    def add(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> None:
        """Clip and add some units, in float32 whatever the gradients' dtype."""
        self._sum.add_(self.clipped(rows, places).sum(0, dtype=torch.int64))

    def clipped(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        """Return the clipped gradients of units in steps of the grid: whole numbers; shape (rows, values).

        There are as many places as rows; those after the last unit are zero.
        """
        units = _add_rows_of_units(_flat(rows), places)
        if self._held is not None:
            units[0].add_(self._held)
        self._held = None
        # As float32, whose range a gradient may leave; it then counts as not finite.
        scale = self._scale(torch.linalg.vector_norm(units, dim=1, dtype=torch.float64).square().float())
        # A weight of 0 is not enough: 0 · ∞ is NaN.
        return units.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0).mul_(scale[:, None]).round_()

    def add_sparse(self, coordinates: torch.Tensor, values: torch.Tensor) -> None:
        """Clip and add units whose gradients have a single non-zero value; both of shape (units,).

        ``coordinates`` count through all values of all parameters.
        """
        clipped = (self._scale(values.square()) * values).round().long()
        self._sum.index_add_(0, coordinates, clipped)

    def steps(self) -> torch.Tensor:
        """Return this rank's sum so far, in steps of the grid; shape (values,)."""
        return self._sum.clone()

    def release(self, noise: Noise, *, batch: float) -> list[torch.Tensor]:
        """Return the noisy sum over all ranks, divided by the expected ``batch``; reset the sum to zero.

        Rank 0 alone adds noise; every rank gets the same values, of the parameters' shapes.
        """
        steps = self.steps()
        if group_state().num_processes > 1:
            torch.distributed.all_reduce(steps)
        total = steps.double() * (self._clip / STEPS_PER_CLIP)
        if is_first():
            total = noise.on_grid(total + noise.draw(total)) / batch
        self._sum.zero_()
        return self._apart(from_first_rank(total).float())

    def _scale(self, squares: torch.Tensor) -> torch.Tensor:
        """Return the grid steps per unit of length for units of these squared norms.

        The scale is 0 where the norm is not finite: otherwise a non-finite sum would reveal the unit.
        """
        least = self._longest / squares.double().sqrt()
        scale = least.clamp(max=STEPS_PER_CLIP / self._clip)
        return torch.where(squares.isfinite(), scale, 0.0).float()

    def _apart(self, values: torch.Tensor) -> list[torch.Tensor]:
        """Split the values of all parameters into one tensor for each."""
        pieces = values.split([shape.numel() for shape in self._shapes])
        return [piece.view(shape) for piece, shape in zip(pieces, self._shapes, strict=True)]


@dataclass(frozen=True, kw_only=True, slots=True)
class RowResults:
    """The gradients and losses of a micro-batch's rows, and which rows belong to one unit."""

    gradients: Sequence[torch.Tensor]
    """One tensor per parameter, of shape (rows, *parameter's shape)."""
    losses: torch.Tensor
    """Each row's part of its unit's mean loss per token; shape (rows,)."""
    places: torch.Tensor
    """The place of each row's unit among the micro-batch's units, ascending and on the CPU; shape (rows,)."""
    ends: bool = True
    """``False`` if the next micro-batch continues the same unit."""

    def add_gradients_to(self, total: ClippedSum) -> None:
        """Add each unit's clipped gradient; an incomplete unit is held, to be clipped as a whole."""
        self._add(self.gradients, total)

    def add_losses_to(self, total: ClippedSum) -> None:
        """Add each unit's clipped loss."""
        self._add([self.losses[:, None]], total)

    def _add(self, rows: Sequence[torch.Tensor], total: ClippedSum) -> None:
        if self.ends:
            total.add(rows, self.places)
        else:
            total.hold(rows)


def _flat(rows: Sequence[torch.Tensor]) -> torch.Tensor:
    """Return a copy of all parameters' gradients; shape (rows, values)."""
    return torch.cat([gradient.flatten(1) for gradient in rows], 1).float()


def _add_rows_of_units(rows: torch.Tensor, places: torch.Tensor) -> torch.Tensor:
    """Replace the rows by the sums of each unit's rows, followed by zeros; return them, of shape (rows, …).

    A unit's rows are added one after the other: its order of addition does not depend on other units.
    """
    units = places.tolist()
    for row, (unit, before) in enumerate(zip(units[1:], units[:-1], strict=True), 1):
        if unit == before:
            rows[unit].add_(rows[row])
        elif unit < row:
            rows[unit].copy_(rows[row])
    rows[units[-1] + 1 :].zero_()
    return rows
