"""The facts that a private job publishes before it trains: n, its plan and its schema."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.sections.guarantee import SchemaSource
from nss_train.config.support import unsupported_training
from nss_train.data.assembly.packing import requested_fraction
from nss_train.data.auto_values import Resolved, automatic_delta, resolve_delta
from nss_train.data.private.table import PrivateTable
from nss_train.errors import ParameterError, Problem
from nss_train.privacy.accounting.plan import SCHEMA, PrivacyPlan, Units, by_products, plan_problems
from nss_train.privacy.draw import Draw, DrawKeeper
from nss_train.privacy.schema.published_schema import Types, draw_schema, paid_columns, publish_schema
from nss_train.privacy.schema.unit_count import (
    chosen,
    draw_counts,
    kind_of_units,
    public_units,
    share_held_out,
    source_of_units,
    unit_problems,
    units_of,
    without_effect,
)
from nss_train.privacy.units import FoundUnits

_REFUSED = "The guarantee cannot be given."


@dataclass(frozen=True, kw_only=True, slots=True)
class Shares:
    """Average shares of the units that are not trained on."""

    holdout: float
    validation: float
    """Share of the units that are not held out."""

    @property
    def together(self) -> float:
        """Return both, as a share of all units."""
        return self.holdout if self.validation == 0 else 1 - (1 - self.holdout) * (1 - self.validation)


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """Plan and schema, and the resolved config with the reasons for all choices."""

    resolved: Resolved
    plan: PrivacyPlan
    passes: float
    """Average number of times that each unit is trained on."""
    shares: Shares
    schema: Mapping[str, Any]


@dataclass(frozen=True, kw_only=True, slots=True)
class Publisher:
    """The public facts that a publication begins with, and where its draw is kept."""

    resolved: Resolved
    types: Types
    places: int
    """Number of places in the file."""
    dataset: str
    holds_out: bool
    keeper: DrawKeeper

    def publish(self, table: PrivateTable, units: FoundUnits) -> Publication:
        """Draw once what must be drawn, and plan the job including its price.

        Raises :class:`ParameterError` with every reason why the guarantee cannot be given; where n is public,
        before anything is drawn.
        """
        self._refuse_unsupported()
        known = public_units(self._config, places=self.places)
        plan = None if known is None else self.plan(known)
        draw = self.keeper.keep(self._proposed(table, units), price=self._price())
        count = units_of(draw, self._config, places=self.places)
        plan = plan or self.plan(count)
        schema = publish_schema(self.types, self.resolved.config.guarantee, draw.columns)
        resolved = resolve_delta(self.resolved, units=count)
        choices = (*resolved.choices, chosen(draw, self._config, count), *schema.choices)
        return Publication(
            resolved=Resolved(config=resolved.config, choices=choices),
            plan=plan.model_copy(update={"without_effect": without_effect(draw, count)}),
            passes=self._passes(count),
            shares=self._shares(count),
            schema=schema.document,
        )

    def plan(self, count: int) -> PrivacyPlan:
        """Return the plan for n units."""
        shares = self._shares(count)
        units = Units(
            kind=kind_of_units(self._config),
            count=count,
            passes=self._passes(count),
            source=source_of_units(self._config),
            held_out=shares.together,
        )
        config = self._with_delta(count)
        problems: list[Problem] = list(unsupported_training(config))
        problems += unit_problems(config, count, shares.holdout) if self.holds_out else ()
        problems += plan_problems(config, units)
        if problems:
            raise ParameterError(_REFUSED, problems)
        return PrivacyPlan.of(config, units, dataset=self.dataset)

    @property
    def _config(self) -> SafeSynthesizerParameters:
        """Return the config, with no budget set aside for a schema that needs none."""
        config = self.resolved.config
        if paid_columns(self.types, config.guarantee):
            return config
        source = config.guarantee.schema_source
        unused = SchemaSource.DECLARED if source is SchemaSource.PRIVATE else source
        guarantee = config.guarantee.model_copy(update={"schema_source": unused})
        return config.model_copy(update={"guarantee": guarantee})

    def _refuse_unsupported(self) -> None:
        problems = unsupported_training(self._config)
        if problems and public_units(self._config, places=self.places) is None:
            raise ParameterError(_REFUSED, problems)

    def _price(self) -> PrivacyPlan:
        kind, source = kind_of_units(self._config), source_of_units(self._config)
        return PrivacyPlan.of_by_products(self._config, kind=kind, source=source, dataset=self.dataset)

    def _proposed(self, table: PrivateTable, units: FoundUnits) -> Draw:
        counts = draw_counts(self._config, self._price().by_products, effective=len(units), idle=units.idle)
        count = units_of(counts, self._config, places=self.places)
        schema = [p for p in by_products(self._config, self._delta(count)) if p.name == SCHEMA]
        if not schema:
            return counts
        columns = draw_schema(
            table.columns,
            self.types,
            units.firsts,
            self._config.guarantee,
            units=count,
            epsilon=schema[0].epsilon,
            delta=schema[0].delta,
        )
        return counts.model_copy(update={"columns": columns})

    def _passes(self, count: int) -> float:
        training = count * (1 - self._shares(count).together)
        wanted = self._config.training.num_input_records_to_sample
        return requested_fraction(wanted, training) if training > 0 else 0.0

    def _shares(self, count: int) -> Shares:
        holdout = share_held_out(self._config, count) if self.holds_out else 0.0
        return Shares(holdout=holdout, validation=self._config.training.validation_ratio)

    def _delta(self, count: int) -> float:
        # Not logged: n must stay unknown until its draw is kept.
        privacy = self._config.privacy
        choice = None if privacy is None else automatic_delta(privacy, units=count)
        return float(choice.value if choice is not None else getattr(privacy, "delta", 0))

    def _with_delta(self, count: int) -> SafeSynthesizerParameters:
        privacy = self._config.privacy
        if privacy is None:
            return self._config
        update = {"privacy": privacy.model_copy(update={"delta": self._delta(count)})}
        return self._config.model_copy(update=update)
