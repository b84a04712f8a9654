"""The budget of all private jobs on a dataset: limits, unit and owner. Imports no accountant."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal, Self

from pydantic import AwareDatetime, Field, model_validator

from nss_train.contract import Frozen

Order = Annotated[float, Field(gt=1, le=1024)]


class Composition(StrEnum):
    """The rule that decides whether a job fits into the budget."""

    ADAPTIVE = "adaptive"
    """A Rényi filter: jobs may be chosen, or skipped, depending on earlier results."""
    FIXED = "fixed"
    """Privacy loss distributions: tighter, but valid only if all settings were fixed beforehand."""


class Budget(Frozen):
    """The total budget of a dataset from now on; it replaces the previous one.

    The defaults are what older releases promised without recording it.
    """

    kind: Literal["budget"] = "budget"
    at: AwareDatetime
    by: str
    reason: str
    epsilon: Annotated[float, Field(gt=0, allow_inf_nan=False)]
    delta: Annotated[float, Field(gt=0, lt=1)]
    unit: str | None = None
    """Unit it protects, ``record`` or ``value of <column>``; ``None``: that of its first job."""
    owner: str | None = None
    """The tenant whose jobs are charged to it; ``None``: any tenant's."""
    composition: Composition = Composition.FIXED
    orders: Annotated[tuple[Order, ...], Field(max_length=32)] = ()
    """Λ: orders of Rényi divergence; the jobs must stay within the budget at one of them (adaptive only)."""
    by_products_delta: Annotated[float, Field(ge=0)] = 0.0
    """Part of δ set aside for by-products that are only (ε, δ)-private (adaptive only)."""

    @model_validator(mode="after")
    def _is_complete(self) -> Self:
        if self.composition is Composition.ADAPTIVE and not self.orders:
            raise ValueError("adaptive composition needs an order at least")
        if self.by_products_delta >= self.delta:
            raise ValueError("by_products_delta must leave some δ for training")
        return self

    @property
    def training_delta(self) -> float:
        """Return the δ that is left for training."""
        return self.delta - self.by_products_delta

    def loosens(self, other: Budget) -> bool:
        """Tell whether it allows more than another budget, or composes in another way."""
        same = ("composition", "orders", "by_products_delta")
        return (
            self.epsilon > other.epsilon
            or self.delta > other.delta
            or any(getattr(self, name) != getattr(other, name) for name in same)
        )


def in_words(unit: str) -> str:
    """Return a unit for use in a sentence: ``records``, ``values of `patient```."""
    kind, _, column = unit.partition(" of ")
    return f"{kind}s of `{column}`" if column else f"{kind}s"
