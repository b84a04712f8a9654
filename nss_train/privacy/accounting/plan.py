"""The plan of a private training and its cost, decided from public facts before it begins."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import Self

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import SchemaSource
from nss_train.config.sections.privacy import MOST_DELTA, DifferentialPrivacyParameters
from nss_train.contract import Frozen
from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting import accountant
from nss_train.privacy.accounting.accountant import LARGEST_NOISE, Accountant

logger = logging.getLogger(__name__)

CURVE_POINTS = 8
COUNT, SCHEMA = "count", "schema"
"""Names of the by-products."""
LOSS_NOISE_RATIO = 5.0
"""Ratio of a reported loss's noise to the gradients' noise; reporting costs 2% more gradient noise."""


class ByProduct(Frozen):
    """A result that is published beside the adapter, and its price."""

    name: str
    epsilon: float
    delta: float = 0.0


ZERO_OUT = "zero-out"
"""Neighbouring tables: one becomes the other when all records of one unit turn into null records, which keep
their places and have no effect (Kairouz et al. 2021, arXiv 2103.00039, Definition 1.1)."""


class Source(StrEnum):
    """The way in which the number of units becomes known."""

    ROWS = "rows"
    """Counted as the file's rows: each is one unit."""
    DECLARED = "declared"
    NOISY = "noisy"
    """Counted with noise that the plan pays for."""


KNOWN_AS = {
    Source.ROWS: "rows of the file",
    Source.DECLARED: "declared",
    Source.NOISY: "counted with noise",
}


@dataclass(frozen=True, kw_only=True, slots=True)
class Units:
    """The units of privacy of a table, as far as they are public."""

    kind: str
    """``record`` or ``value of <column>``."""
    count: int
    """n: the number of units."""
    passes: float
    """How often each unit should be seen, on average (NSS's ``data_fraction``)."""
    source: Source = Source.ROWS
    held_out: float = 0.0
    """Average share of the units that no step can draw."""

    @property
    def training(self) -> float:
        """Return the average number of units that steps draw from."""
        return self.count * (1 - self.held_out)


class PrivacyPlan(Frozen):
    """``privacy.json``: the mechanism of a job."""

    adjacency: str = "add-or-remove"
    """Neighbouring relation: :data:`ZERO_OUT`; the default is what older releases promised unrecorded."""
    dataset: str
    """Dataset whose budget it is charged to."""
    unit: str
    """``record`` or ``value of <column>``; ``group`` in plans of older releases for groups."""
    units: int
    """n: the number of places, which is public."""
    units_source: Source = Source.ROWS
    """Source of n."""
    holdout: float = 0.0
    """h: the average share of places that is held out."""
    without_effect: int | None = None
    """Noisy number of units whose records are all null or too long; ``None`` in older releases' plans."""
    epsilon: float
    delta: float
    """δ that the job may spend in total; ``epsilon`` is its ε."""
    by_products: tuple[ByProduct, ...] = ()
    clip: float
    """C: the largest ℓ2 norm that a unit's gradient keeps."""
    batch: int
    """Expected number of units of a step: q·(1-h)·n, a constant."""
    sampling_rate: float
    """q: the probability with which each unit takes part in each step."""
    steps: int
    noise_multiplier: float
    """σ: standard deviation of a step's noise in units of the sensitivity."""
    report_loss: bool = False
    curve: tuple[tuple[int, float], ...] = ()
    """Pairs of a number of steps, ascending up to all of them, and ε after it."""

    def promise(self) -> str:
        """Return the promise as the one sentence that plan, card, status and estimate share."""
        unit = (
            f"any one {self.unit} was"
            if self.unit == "record"
            else f"the records of any one {self.unit} were"
        )
        if self.adjacency != ZERO_OUT:
            return (
                f"Whether {unit} in the table makes every outcome at most exp(ε) times as likely, but for a"
                f" chance of δ = {self.delta:.3g}; ε = {self.epsilon:g}."
            )
        null = "a null record" if self.unit == "record" else "null records"
        return (
            f"Whoever sees all that this job published cannot tell, but for (ε, δ) = ({self.epsilon:g},"
            f" {self.delta:.3g}), whether {unit} in the table or {null} without effect;"
            f" n = {self.units:,} is public ({KNOWN_AS[self.units_source]})."
        )

    @property
    def gradient_noise(self) -> float:
        """Return σ of the gradients alone.

        Gradient and loss of a step are one Gaussian release with multiplier σ when
        1/σ² = 1/σ_gradient² + 1/σ_loss².
        """
        return self.noise_multiplier * (math.sqrt(1 + LOSS_NOISE_RATIO**-2) if self.report_loss else 1.0)

    @property
    def loss_noise(self) -> float:
        """Return σ of a reported loss."""
        return self.gradient_noise * LOSS_NOISE_RATIO

    def spent(self, steps: int, by: Accountant = Accountant.PLD) -> float:
        """Return ε after ``steps`` steps, by-products included (they are added: basic composition)."""
        if steps == 0:
            return self._paid
        options = {"noise_multiplier": self.noise_multiplier, "sampling_rate": self.sampling_rate}
        if by is Accountant.PLD:
            return self._paid + accountant.spent_in_steps(**options, steps=steps, delta=self._delta_left)
        event = accountant.training(**options, steps=steps)
        return self._paid + accountant.spent(event, self._delta_left, by)

    @property
    def _paid(self) -> float:
        """Return ε of the by-products."""
        return sum(product.epsilon for product in self.by_products)

    @property
    def _delta_left(self) -> float:
        """Return the δ that is left for the steps."""
        return self.delta - sum(product.delta for product in self.by_products)

    def spent_at_most(self, steps: int) -> float:
        """Return ε at the next point of the curve: close enough for monitoring, and never too small."""
        return next((spent for at, spent in self.curve if at >= steps), self.epsilon)

    def _points(self) -> Iterator[tuple[int, float]]:
        """Yield the points of the curve: the last is exact, the others slightly too high, which is faster."""
        for at in sorted({math.ceil(self.steps * part / CURVE_POINTS) for part in range(1, CURVE_POINTS)}):
            if at < self.steps:
                spent = accountant.spent_in_steps_at_most(
                    noise_multiplier=self.noise_multiplier,
                    sampling_rate=self.sampling_rate,
                    steps=at,
                    delta=self._delta_left,
                )
                yield at, min(self._paid + spent, self.epsilon)
        yield self.steps, self.spent(self.steps)

    @classmethod
    def of_by_products(
        cls, config: SafeSynthesizerParameters, *, kind: str, source: Source, dataset: str
    ) -> Self:
        """Return the price of what prepare_data draws, from the config alone: a plan with no steps.

        Where δ follows from n, which may itself be drawn, it is the largest possible.
        """
        privacy, most = _required(config), most_delta(config)
        return cls(
            adjacency=ZERO_OUT,
            dataset=dataset,
            unit=kind,
            units=0,
            units_source=source,
            epsilon=privacy.epsilon,
            delta=most,
            by_products=by_products(config, most),
            clip=privacy.per_sample_max_grad_norm,
            batch=config.training.effective_batch_size,
            sampling_rate=1.0,
            steps=0,
            noise_multiplier=LARGEST_NOISE,
        )

    @classmethod
    def of(cls, config: SafeSynthesizerParameters, units: Units, *, dataset: str) -> Self:
        """Return the plan of a resolved config; raise :class:`ParameterError` with every reason against it.

        As in NSS, q = min(1, B/n) and there are ``passes`` · (1/q + 1) steps; n is the expected number of
        units that are not held out.
        """
        problems = list(plan_problems(config, units))
        if problems:
            raise ParameterError("The guarantee cannot be given.", problems)
        privacy, guarantee = _required(config), config.guarantee
        delta = float(privacy.delta)
        products = by_products(config, delta)
        batch = config.training.effective_batch_size
        rate = min(1.0, batch / units.training)
        steps = max(1, int(units.passes * (1 / rate + 1)))
        noise = accountant.noise_multiplier(
            epsilon=privacy.epsilon - sum(product.epsilon for product in products),
            delta=delta - sum(product.delta for product in products),
            sampling_rate=rate,
            steps=steps,
        )
        if math.isinf(noise):
            raise ParameterError("The guarantee cannot be given.", [_too_noisy(privacy.epsilon, steps)])
        plan = cls(
            adjacency=ZERO_OUT,
            dataset=dataset,
            unit=units.kind,
            units=units.count,
            units_source=units.source,
            holdout=units.held_out,
            epsilon=privacy.epsilon,
            delta=delta,
            by_products=products,
            clip=privacy.per_sample_max_grad_norm,
            batch=batch,
            sampling_rate=rate,
            steps=steps,
            noise_multiplier=noise,
            report_loss=guarantee.report_loss,
        )
        plan = plan.model_copy(update={"curve": tuple(plan._points())})
        plan.log()
        return plan

    def log(self) -> None:
        """Log what was chosen and why, with the ε of the cross-check."""
        pld, rdp = self.spent(self.steps), self.spent(self.steps, Accountant.RDP)
        training = self.units * (1 - self.holdout)
        reasons = {
            "sampling_rate": f"{self.batch} of {training:g} units are expected in a step",
            "steps": "as many passes over the units as the config asks for",
            "noise_multiplier": f"it is the least with ε ≤ {self.epsilon:g} at δ = {self.delta:.3g}"
            f" (PLD: {pld:.4f}, RDP: {rdp:.4f})",
        }
        for name, reason in reasons.items():
            value = getattr(self, name)
            fields = {"action": "privacy.planned", "parameter": name, "value": value}
            logger.info("%s=%s because %s", name, value, reason, extra=fields)


def _required(config: SafeSynthesizerParameters) -> DifferentialPrivacyParameters:
    if config.privacy is None or not config.dp_enabled:
        raise ValueError("the config asks for no privacy")
    return config.privacy


def most_delta(config: SafeSynthesizerParameters) -> float:
    """Return the given δ, or the largest that an automatic one can be."""
    given = _required(config).delta
    return given if isinstance(given, float) else MOST_DELTA


def by_products(config: SafeSynthesizerParameters, delta: float) -> tuple[ByProduct, ...]:
    """Return what is published beside the adapter, at a job's δ."""
    guarantee, epsilon = config.guarantee, _required(config).epsilon
    found = [ByProduct(name=COUNT, epsilon=guarantee.count_share * epsilon)]
    if guarantee.schema_source is SchemaSource.PRIVATE:
        share = guarantee.schema_share
        # NSS's rule for δ exceeds the cap where units are few, and a draw's cost is fixed before it.
        capped = min(delta, most_delta(config))
        found.append(ByProduct(name=SCHEMA, epsilon=share * epsilon, delta=share * capped))
    return tuple(found)


def plan_problems(config: SafeSynthesizerParameters, units: Units) -> Iterator[Problem]:
    """Yield every reason why n units cannot be trained on as configured, except too much noise."""
    privacy, batch = _required(config), config.training.effective_batch_size
    if not isinstance(privacy.delta, float) or not 0 < privacy.delta < 1 / units.count:
        remedy = f"must be above 0 and below 1/n = {1 / units.count:.3g} for {units.count} units; use auto"
        yield Problem(field="privacy.delta", value=privacy.delta, remedy=remedy)
    if batch > units.training:
        remedy = (
            f"there are {units.training:g} units to draw from, fewer than a step expects; lower batch_size ×"
            " gradient_accumulation_steps, or bring more units"
        )
        yield Problem(field="training.batch_size", value=batch, remedy=remedy)


def _too_noisy(epsilon: float, steps: int) -> Problem:
    remedy = (
        f"{steps} steps would need noise of more than {LARGEST_NOISE:g} times the clipping norm;"
        " raise it, ask for fewer records, or bring more units"
    )
    return Problem(field="privacy.epsilon", value=epsilon, remedy=remedy)
