"""The count n: how it becomes known, what that costs, and what follows from it."""

from __future__ import annotations

from typing import Any

import pytest

from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.privacy.accounting.plan import ByProduct, PrivacyPlan, Source, by_products
from nss_train.privacy.draw import Draw
from nss_train.privacy.schema import noisy_statistics
from nss_train.privacy.schema.unit_count import (
    draw_counts,
    share_held_out,
    source_of_units,
    units_of,
    without_effect,
)
from tests.unit.privacy.plans import plan

PRICE = (ByProduct(name="count", epsilon=0.08), ByProduct(name="schema", epsilon=0.8, delta=1e-6))
VALUES = {"unit_column": "patient"}


def config(data: dict[str, Any] | None = None, **guarantee: Any) -> SafeSynthesizerParameters:
    return parse_config({"privacy": {"dp_enabled": True}, "data": data or {}, "guarantee": guarantee})


@pytest.mark.parametrize(
    ("guarantee", "source"),
    [
        ({}, Source.ROWS),
        ({"units": "rows"}, Source.ROWS),
        ({"units": "noisy"}, Source.NOISY),
        ({"units": 500}, Source.DECLARED),
        (VALUES, Source.NOISY),
        (VALUES | {"units": 500}, Source.DECLARED),
    ],
)
def test_records_are_the_file_s_rows_and_values_are_counted_with_noise(
    guarantee: dict[str, Any], source: Source
) -> None:
    assert source_of_units(config(**guarantee)) is source


@pytest.mark.parametrize(
    ("guarantee", "costs"),
    [
        ({}, {"effective": 0.08}),
        ({"units": 500}, {"effective": 0.08}),
        # A value is in one of the two counts, so that they cost no more together than each alone.
        (VALUES, {"effective": 0.08, "idle": 0.08}),
        # A record that turns null changes both.
        ({"units": "noisy"}, {"effective": 0.04, "idle": 0.04}),
    ],
)
def test_counts_cost_their_share_and_no_more(
    guarantee: dict[str, Any], costs: dict[str, float], monkeypatch: pytest.MonkeyPatch
) -> None:
    spent: list[float] = []

    def count(units: int, *, epsilon: float) -> int:
        spent.append(epsilon)
        return units

    monkeypatch.setattr(noisy_statistics, "count", count)
    draw = draw_counts(config(**guarantee), PRICE, effective=300, idle=20)
    assert spent == [pytest.approx(cost) for cost in costs.values()]
    assert (draw.effective, draw.idle) == (300, 20 if "idle" in costs else None)


def test_n_is_what_was_drawn_and_never_less_than_one() -> None:
    drawn = Draw(effective=-4, idle=7)
    assert units_of(drawn, config(**VALUES), places=400) == 1
    assert units_of(drawn, config(), places=400) == 400
    assert units_of(drawn, config(**VALUES, units=90), places=400) == 90
    assert without_effect(drawn, 1) == 7
    assert without_effect(Draw(effective=380), 400) == 20
    assert without_effect(Draw(effective=411), 400) == 0


@pytest.mark.parametrize(
    ("data", "share"),
    [
        ({"holdout": 0}, 0),
        ({"holdout": 0.1}, 0.1),
        ({"holdout": 50}, 0.05),
        ({"holdout": 0.5, "max_holdout": 100}, 0.1),
        ({"max_holdout": 0}, 0),
    ],
)
def test_a_holdout_is_a_share_of_n(data: dict[str, Any], share: float) -> None:
    assert share_held_out(config(data), 1000) == pytest.approx(share)


def test_a_price_is_fixed_before_n_is_known() -> None:
    price = PrivacyPlan.of_by_products(
        config(**VALUES), kind="value of patient", source=Source.NOISY, dataset="d"
    )
    assert (price.steps, price.spent(0), price.adjacency) == (0, pytest.approx(0.88), "zero-out")
    for units in (200, 10**7):
        later = by_products(config(**VALUES), min(1e-5, 0.1 / units))
        for paid, due in zip(price.by_products, later, strict=True):
            assert (paid.name, paid.epsilon) == (due.name, due.epsilon)
            assert paid.delta >= due.delta


def test_what_is_promised_is_one_sentence() -> None:
    values = plan(adjacency="zero-out", unit="value of patient", units=640, units_source="noisy")
    assert values.promise() == (
        "Whoever sees all that this job published cannot tell, but for (ε, δ) = (2, 1e-06), "
        "whether the records of any one value of patient were in the table or null records without effect; "
        "n = 640 is public (counted with noise)."
    )
    # A plan of an older release keeps its own words.
    assert "makes every outcome at most exp(ε) times as likely" in plan().promise()
