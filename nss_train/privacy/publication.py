"""What a private job makes public before it trains: its plan and its schema."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.guarantee import SchemaSource
from nss_train.config.resolve import Choice, unit_column
from nss_train.config.support import unsupported_training
from nss_train.data.distinct import Column
from nss_train.errors import ParameterError, Problem
from nss_train.privacy.plan import PrivacyPlan, Units
from nss_train.privacy.schema import check_declared, paid_columns, publish_schema
from nss_train.privacy.units import Membership


@dataclass(frozen=True, kw_only=True, slots=True)
class Publication:
    """Plan and schema, and how the schema came about."""

    plan: PrivacyPlan
    schema: Mapping[str, Any]
    choices: tuple[Choice, ...]


def publish(
    columns: Sequence[Column],
    membership: Membership,
    config: SafeSynthesizerParameters,
    *,
    passes: float,
    dataset: str,
) -> Publication:
    """Plan the job, then describe its columns for the price in the plan.

    Raises :class:`ParameterError` with every reason why the guarantee cannot be given.
    """
    units = Units(kind=kind_of_units(config), count=len(membership), passes=passes)
    plan = _plan(columns, units, config, dataset)
    schema = publish_schema(
        columns,
        membership.firsts,
        config,
        epsilon=sum(product.epsilon for product in plan.by_products if product.name == "schema"),
        delta=sum(product.delta for product in plan.by_products if product.name == "schema"),
    )
    return Publication(plan=plan, schema=schema.document, choices=schema.choices)


def kind_of_units(config: SafeSynthesizerParameters) -> str:
    """``record`` or ``value of <column>``, whether the column makes groups or units alone.

    The column is always named: jobs on one dataset add up only where it is the same.
    """
    column = unit_column(config)
    return "record" if column is None else f"value of {column}"


def _plan(
    columns: Sequence[Column], units: Units, config: SafeSynthesizerParameters, dataset: str
) -> PrivacyPlan:
    problems: list[Problem] = list(unsupported_training(config))
    try:
        check_declared(columns, config.guarantee)
    except ParameterError as error:
        problems += error.problems
    try:
        plan = PrivacyPlan.of(_free_of_charge(columns, config), units, dataset=dataset)
    except ParameterError as error:
        problems += error.problems
    if problems:
        raise ParameterError("The guarantee cannot be given.", problems)
    return plan


def _free_of_charge(
    columns: Sequence[Column], config: SafeSynthesizerParameters
) -> SafeSynthesizerParameters:
    """The config with nothing set aside for a schema that has no use for it."""
    if config.guarantee.schema_source is not SchemaSource.PRIVATE or paid_columns(columns, config.guarantee):
        return config
    guarantee = config.guarantee.model_copy(update={"schema_source": SchemaSource.DECLARED})
    return config.model_copy(update={"guarantee": guarantee})
