"""Invented units in the real model: each unit's gradient, its time, and the layer that couples units."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from nss_train.model.layers.compiled import eagerly
from nss_train.model.tokenizer import IGNORED_LABEL
from nss_train.privacy.dpsgd.gradients.clipping import STEPS_PER_CLIP, ClippedSum
from nss_train.privacy.dpsgd.gradients.micro_batches import FILLER, MicroBatch, Shapes, UnitExamples
from nss_train.privacy.dpsgd.gradients.passes import Passes
from nss_train.privacy.dpsgd.mechanism import LOSS_CLIP
from nss_train.privacy.dpsgd.poisson_sampling import Indices
from nss_train.training.seeding import public_luck

FAR = 64.0
"""Factor of the two clips below and above a short unit's norm: one clips all, the other nothing."""
BLAME = 0.1
"""Least share of the largest change that makes a layer a suspect: rounding causes changes, too."""
_GROWTH = 4.0
ORIGIN = "base_model.model."
"""Prefix that PEFT adds to the names of a base model's layers."""


@dataclass(frozen=True, kw_only=True, slots=True)
class Run:
    """Units in an order, with their filler and a seed of the public generators."""

    units: UnitExamples
    order: Indices
    luck: int


class Witness(ClippedSum):
    """A sum that also keeps what each unit adds."""

    def __init__(self, parameters: Sequence[torch.Tensor], *, clip: float) -> None:
        super().__init__(parameters, clip=clip)
        self.seen: dict[int, torch.Tensor] = {}
        self._last: torch.Tensor | None = None

    def clipped(self, rows: Sequence[torch.Tensor], places: torch.Tensor) -> torch.Tensor:
        found = super().clipped(rows, places)
        self._last = found
        return found

    def note(self, units: np.ndarray, places: torch.Tensor) -> None:
        """Assign the last gradients to their units."""
        if self._last is not None:
            for unit, place in zip(units.tolist(), places.tolist(), strict=True):
                if unit != FILLER:
                    self.seen[unit] = self._last[place].to("cpu", copy=True)
        self._last = None


@dataclass(frozen=True, kw_only=True, slots=True)
class Seen:
    """The units' results in a run: gradients with all clipped, gradients with none clipped, and losses."""

    clipped: Witness
    free: Witness
    losses: Witness

    def moved(self, other: Seen, unit: int) -> float:
        """Return how far a unit's gradient or loss moved from another run, in units of the clip."""
        free = _distance(self.free.seen[unit], other.free.seen[unit])
        return max(
            _distance(self.clipped.seen[unit], other.clipped.seen[unit]) / STEPS_PER_CLIP,
            # Relative to an unclipped gradient's norm, which is C at most.
            free / max(1.0, float(self.free.seen[unit].double().norm())),
            _distance(self.losses.seen[unit], other.losses.seen[unit]) / STEPS_PER_CLIP,
        )

    def beyond(self, other: Seen, there: Indices) -> float:
        """Return by how much more than C one added unit moves the sum of these units, in units of C."""
        sides = ((self.clipped, other.clipped), (self.free, other.free))
        return max(_norm_of_change(one, more, there) for one, more in sides) - 1


class Probe:
    """A probe that takes invented units through a model as a step takes real ones."""

    def __init__(self, passes: Passes, shapes: Shapes) -> None:
        self._passes, self._shapes = passes, shapes
        self.seconds: dict[int, list[float]] = defaultdict(list)
        """Seconds that micro-batches of each width took."""
        self._usual = 1.0

    def begin(self, units: UnitExamples, unit: int) -> None:
        """Measure the norm of a short unit alone."""
        self._usual = self.norm_alone(units, unit) or 1.0

    def run(self, run: Run) -> Seen:
        weights, device = self._passes.weights, self._passes.device
        clipped, free = (Witness(weights, clip=self._usual * far) for far in (1 / FAR, FAR))
        losses = Witness([torch.zeros(1, device=device)], clip=LOSS_CLIP)
        with public_luck(run.luck):
            for batch in run.units.micro_batches(run.order, self._shapes):
                started = self._passes.now()
                self._add(batch, clipped, free, losses)
                self.seconds[batch.input_ids.shape[1]].append(self._passes.now() - started)
                for witness in (clipped, free, losses):
                    witness.note(batch.units, batch.places)
        return Seen(clipped=clipped, free=free, losses=losses)

    def _add(self, batch: MicroBatch, clipped: Witness, free: Witness, losses: Witness) -> None:
        rows = self._passes.gradients(batch)
        rows.add_gradients_to(clipped)
        rows.add_gradients_to(free)
        rows.add_losses_to(losses)

    def norm_alone(self, units: UnitExamples, unit: int) -> float:
        """Return the norm of a unit's gradient by plain backpropagation, each row alone, without padding."""
        self._forget()
        with eagerly():
            for batch in units.rows_alone(unit):
                self._passes.losses(batch.to(self._passes.device)).sum().backward()
        squares = [w.grad.double().square().sum() for w in self._passes.weights if w.grad is not None]
        found = float(torch.stack(squares).sum().sqrt())
        self._forget()
        return found

    def norm(self, seen: Seen, unit: int) -> float:
        """Return the norm of a unit's unclipped gradient in a run."""
        return float(seen.free.seen[unit].double().norm()) * self._usual * FAR / STEPS_PER_CLIP

    def culprit(self, unit: int, one: Run, other: Run) -> str:
        """Return the first layer whose output changes more than its input, for the unit's first row."""
        first, second = (self._trace(unit, run) for run in (one, other))
        changes = {name: _change(first[name], second[name]) for name in first if name in second}
        suspects = {name: gave for name, (got, gave) in changes.items() if gave > _GROWTH * got}
        if not suspects:
            return "backward pass"
        least = BLAME * max(suspects.values())
        found = next(name for name, gave in suspects.items() if gave >= least)
        return found.removeprefix(ORIGIN) or "model"

    def _trace(self, unit: int, run: Run) -> dict[str, tuple[Any, Any]]:
        """Return each module's input and output for the unit's first row, in the order of completion."""
        found: dict[str, tuple[Any, Any]] = {}
        row: _Row | None = None

        def hook(name: str) -> Any:
            def keep(_module: object, given: object, named: object, gave: object) -> None:
                if row is not None and name not in found:
                    found[name] = row.of((given, named)), row.of(gave)

            return keep

        modules = self._passes.model.named_modules()
        hooks = [module.register_forward_hook(hook(name), with_kwargs=True) for name, module in modules]
        try:
            with torch.no_grad(), eagerly(), public_luck(run.luck):
                for batch in run.units.micro_batches(run.order, self._shapes):
                    row = _Row.of_unit(unit, batch)
                    self._passes.losses(batch.to(self._passes.device))
        finally:
            for one in hooks:
                one.remove()
        return found

    def _forget(self) -> None:
        for weight in self._passes.weights:
            weight.grad = None


def _distance(one: torch.Tensor, other: torch.Tensor) -> float:
    return 0.0 if torch.equal(one, other) else float((one.double() - other.double()).norm())


def _norm_of_change(one: Witness, more: Witness, there: Indices) -> float:
    """Return the norm of the sum's change, in units of the clip, when a unit joins those present."""
    total = more.steps().cpu()
    for unit in there.tolist():
        total = total - one.seen[unit].long()
    return float(total.double().norm()) / STEPS_PER_CLIP


@dataclass(frozen=True, kw_only=True, slots=True)
class _Row:
    """A row of a micro-batch without its padding, which may differ between runs."""

    number: int
    tokens: int
    shape: tuple[int, int]
    """Rows and tokens of the micro-batch."""

    @classmethod
    def of_unit(cls, unit: int, batch: MicroBatch) -> _Row | None:
        """Return the unit's first row, or ``None`` when it has none in the batch."""
        rows = np.flatnonzero(batch.units == unit)
        if not len(rows):
            return None
        learned = (batch.labels[int(rows[0])] != IGNORED_LABEL).nonzero()
        rows_there, width = batch.input_ids.shape
        return cls(number=int(rows[0]), tokens=int(learned.max()) + 1, shape=(rows_there, width))

    def of(self, value: object) -> list[torch.Tensor]:
        """Return the tensors in a value; of those that hold all rows, only this row's part."""
        if isinstance(value, torch.Tensor):
            return [self._part(value.detach()).float().cpu()]
        if isinstance(value, dict):
            value = list(value.values())
        if isinstance(value, list | tuple):
            return [tensor for one in value for tensor in self.of(one)]
        return []

    def _part(self, whole: torch.Tensor) -> torch.Tensor:
        rows, width = self.shape
        if whole.dim() and len(whole) == rows * width:
            whole = whole.unflatten(0, self.shape)
        if whole.dim() and len(whole) == rows:
            whole = whole[self.number]
            return whole[: self.tokens] if whole.dim() and len(whole) == width else whole
        return whole


def _change(one: tuple[Any, Any], other: tuple[Any, Any]) -> tuple[float, float]:
    """Return the relative changes of a module's input and of its output."""
    got, gave = (
        max((_relative(a, b) for a, b in zip(*sides, strict=False)), default=0.0)
        for sides in zip(one, other, strict=True)
    )
    return got, gave


def _relative(one: torch.Tensor, other: torch.Tensor) -> float:
    if one.shape != other.shape:
        return float("inf")
    if torch.equal(one, other):
        return 0.0
    return float((one - other).norm() / one.norm().clamp(min=1e-30))
