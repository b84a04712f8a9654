"""The number of units n: how it becomes known, and the share held out."""

from __future__ import annotations

from collections.abc import Iterator

from nss_train.config import SafeSynthesizerParameters
from nss_train.data.auto_values import Choice, unit_column
from nss_train.data.columns import MIN_ROWS
from nss_train.errors import Problem
from nss_train.privacy.accounting.plan import COUNT, KNOWN_AS, ByProduct, Source
from nss_train.privacy.draw import Draw
from nss_train.privacy.schema import noisy_statistics

MIN_HELD_OUT = 10
"""Least units held out, as of rows without privacy: fewer are useless for comparison."""


def kind_of_units(config: SafeSynthesizerParameters) -> str:
    """Return ``record`` or ``value of <column>``, whether the column makes groups or only units.

    The column is always named: jobs on one dataset add up only where it is the same.
    """
    column = unit_column(config)
    return "record" if column is None else f"value of {column}"


def source_of_units(config: SafeSynthesizerParameters) -> Source:
    """Return how n becomes known; the rows give the number of records, not of a column's values."""
    asked = config.guarantee.units
    if isinstance(asked, int):
        return Source.DECLARED
    if asked is None:
        return Source.ROWS if unit_column(config) is None else Source.NOISY
    return Source(asked)


def public_units(config: SafeSynthesizerParameters, *, places: int) -> int | None:
    """Return n where it needs no draw, else ``None``."""
    asked, source = config.guarantee.units, source_of_units(config)
    if source is Source.ROWS:
        return places
    return asked if isinstance(asked, int) else None


def draw_counts(
    config: SafeSynthesizerParameters, products: tuple[ByProduct, ...], *, effective: int, idle: int
) -> Draw:
    """Count the units with noise, within the price of the count.

    A unit counts once: among those with an effect or among the idle. When one value of a column comes or
    goes, only one of the two counts changes, by one, so each may cost the whole price. A record that turns
    null moves from one count to the other, so each costs half.
    """
    epsilon = sum(product.epsilon for product in products if product.name == COUNT)
    both = source_of_units(config) is Source.NOISY
    each = epsilon / 2 if both and unit_column(config) is None else epsilon
    return Draw(
        effective=noisy_statistics.count(effective, epsilon=each),
        idle=noisy_statistics.count(idle, epsilon=each) if both else None,
    )


def units_of(draw: Draw, config: SafeSynthesizerParameters, *, places: int) -> int:
    """Return n, from the draw where it is not public."""
    known = public_units(config, places=places)
    return max(1, draw.effective) if known is None else known


def without_effect(draw: Draw, units: int) -> int:
    """Return the approximate number of units without effect."""
    return max(0, units - draw.effective if draw.idle is None else draw.idle)


def share_held_out(config: SafeSynthesizerParameters, units: int) -> float:
    """Return h: ``holdout`` as a share of n, ``max_holdout`` units at most."""
    data = config.data
    share = data.holdout if data.holdout < 1 else data.holdout / units
    return min(share, data.max_holdout / units)


def unit_problems(config: SafeSynthesizerParameters, units: int, held_out: float) -> Iterator[Problem]:
    """Yield what is wrong with n and with the share held out."""
    if units < MIN_ROWS and "dataset.size" not in config.preflight.disabled_checks:
        remedy = (
            f"n = {units} places; at least {MIN_ROWS} are needed; bring more, or list dataset.size under"
            " preflight.disabled_checks"
        )
        yield Problem(field="guarantee.units", value=units, remedy=remedy)
    expected = held_out * units
    if held_out > 0 and not MIN_HELD_OUT - 1e-9 <= expected < units:
        remedy = (
            f"{expected:g} of {units} places are held out on average; take at least {MIN_HELD_OUT} and leave"
            " some, or 0 for none"
        )
        yield Problem(field="data.holdout", value=config.data.holdout, remedy=remedy)


def chosen(draw: Draw, config: SafeSynthesizerParameters, units: int) -> Choice:
    """Return n as a choice, with how it became known and about how many units have no effect."""
    idle, kind = without_effect(draw, units), kind_of_units(config)
    reason = (
        f"a unit is one {kind}, and their number is {KNOWN_AS[source_of_units(config)]}; about {idle} of them"
        " count for nothing, by a noisy count: all that they hold is null, does not fit or is too long"
    )
    return Choice(name="guarantee.units", value=units, reason=reason)
