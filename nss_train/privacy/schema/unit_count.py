"""n, the number of units: how it becomes known, and what is held out of it."""

from __future__ import annotations

from collections.abc import Iterator

from nss_train.config import SafeSynthesizerParameters
from nss_train.config.resolve import Choice, unit_column
from nss_train.data.columns import MIN_ROWS
from nss_train.errors import Problem
from nss_train.privacy.accounting.plan import COUNT, KNOWN_AS, ByProduct, Source
from nss_train.privacy.draw import Draw
from nss_train.privacy.schema import noisy_statistics

MIN_HELD_OUT = 10
"""As of rows without privacy: fewer are no use to compare with."""


def kind_of_units(config: SafeSynthesizerParameters) -> str:
    """``record`` or ``value of <column>``, whether the column makes groups or units alone.

    The column is always named: jobs on one dataset add up only where it is the same.
    """
    column = unit_column(config)
    return "record" if column is None else f"value of {column}"


def source_of_units(config: SafeSynthesizerParameters) -> Source:
    """How n becomes known. Rows tell how many records there are, but would count the values of a column."""
    asked = config.guarantee.units
    if isinstance(asked, int):
        return Source.DECLARED
    if asked is None:
        return Source.ROWS if unit_column(config) is None else Source.NOISY
    return Source(asked)


def public_units(config: SafeSynthesizerParameters, *, places: int) -> int | None:
    """n where it needs no draw."""
    asked, source = config.guarantee.units, source_of_units(config)
    if source is Source.ROWS:
        return places
    return asked if isinstance(asked, int) else None


def draw_counts(
    config: SafeSynthesizerParameters, products: tuple[ByProduct, ...], *, effective: int, idle: int
) -> Draw:
    """Count the units with noise, within the price of the count.

    A unit counts once: among those with an effect or among the idle. Both counts together differ by one
    where one value of a column goes or comes, so that each may cost all of the price. A record that turns
    null moves from one to the other: then each costs half.
    """
    epsilon = sum(product.epsilon for product in products if product.name == COUNT)
    both = source_of_units(config) is Source.NOISY
    each = epsilon / 2 if both and unit_column(config) is None else epsilon
    return Draw(
        effective=noisy_statistics.count(effective, epsilon=each),
        idle=noisy_statistics.count(idle, epsilon=each) if both else None,
    )


def units_of(draw: Draw, config: SafeSynthesizerParameters, *, places: int) -> int:
    """n, once it is drawn."""
    known = public_units(config, places=places)
    return max(1, draw.effective) if known is None else known


def without_effect(draw: Draw, units: int) -> int:
    """About how many units count for nothing."""
    return max(0, units - draw.effective if draw.idle is None else draw.idle)


def share_held_out(config: SafeSynthesizerParameters, units: int) -> float:
    """h: ``holdout`` as a share of n, ``max_holdout`` at most."""
    data = config.data
    share = data.holdout if data.holdout < 1 else data.holdout / units
    return min(share, data.max_holdout / units)


def unit_problems(config: SafeSynthesizerParameters, units: int, held_out: float) -> Iterator[Problem]:
    """What is wrong with n and with the share of it that is held out."""
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
    """How n became known, and about how many units count for nothing."""
    idle, kind = without_effect(draw, units), kind_of_units(config)
    reason = (
        f"a unit is one {kind}, and their number is {KNOWN_AS[source_of_units(config)]}; about {idle} of them"
        " count for nothing, by a noisy count: all that they hold is null, does not fit or is too long"
    )
    return Choice(name="guarantee.units", value=units, reason=reason)
