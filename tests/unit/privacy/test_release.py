"""Noise on what is published of a column: what it hides, and what it still shows."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from nss_train.artifacts.records import parse_completion, schema_validator
from nss_train.config import SafeSynthesizerParameters, parse_config
from nss_train.config.sections.guarantee import ColumnType
from nss_train.data.tokenization.distinct_values import distinct_columns, to_arrow
from nss_train.privacy.schema import noisy_statistics
from nss_train.privacy.schema.published_schema import (
    PublishedSchema,
    draw_schema,
    paid_columns,
    publish_schema,
)
from tests.unit.privacy.tables import private_table

ROWS = 500
DELTA = 1e-6


def private(**guarantee: Any) -> SafeSynthesizerParameters:
    return parse_config({"privacy": {"dp_enabled": True}, "guarantee": guarantee})


TYPES = {
    "name": ColumnType.STRING,
    "city": ColumnType.STRING,
    "age": ColumnType.INTEGER,
    "weight": ColumnType.NUMBER,
    "member": ColumnType.BOOLEAN,
    "title": ColumnType.STRING,
    "when": ColumnType.DATETIME,
    "tags": ColumnType.JSON,
}


def published(frame: pd.DataFrame, epsilon: float = 8.0, **guarantee: Any) -> PublishedSchema:
    """Return what is published of a frame whose each row is a unit."""
    columns, types = distinct_columns(to_arrow(frame)), {name: TYPES[name] for name in frame.columns}
    asked = private(**guarantee).guarantee
    drawn = draw_schema(
        columns, types, np.arange(len(frame)), asked, units=len(frame), epsilon=epsilon, delta=DELTA
    )
    return publish_schema(types, asked, drawn)


def people(rows: int = ROWS) -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "name": [f"person {i}" for i in range(rows)],
            "city": rng.choice(["Bern", "Graz", "Köln"], rows),
            "age": rng.integers(18, 90, rows),
            "weight": rng.normal(75, 12, rows).round(1),
            "member": rng.random(rows) < 0.5,
        }
    )


def test_a_value_of_one_unit_is_hardly_ever_found() -> None:
    values = [0] * 300 + [1]
    found = [
        noisy_statistics.categories(values, units=301, epsilon=1.0, delta=1e-3).found for _ in range(400)
    ]
    assert all(0 in categories for categories in found)
    # With probability δ in each draw: more than 6 of 400 has a chance of one in a million.
    assert sum(1 in categories for categories in found) <= 6


@pytest.mark.heavy
def test_categories_cost_no_more_than_they_may() -> None:
    """The likelihood ratio of neighbours is largest where a count is just at the threshold."""
    epsilon, delta, draws = 1.0, 0.01, 2000
    threshold = noisy_statistics.categories([0], units=1, epsilon=epsilon, delta=delta).threshold

    def found(count: int) -> float:
        values = [0] * count + [1] * 100
        return sum(
            0 in noisy_statistics.categories(values, units=100, epsilon=epsilon, delta=delta).found
            for _ in range(draws)
        )

    with_unit, without = found(threshold) / draws, found(threshold - 1) / draws
    # Five standard errors of room; half the noise would need more than three times as much.
    assert with_unit <= np.exp(epsilon) * without + delta + 0.15
    assert with_unit > without


@given(
    values=st.lists(st.floats(allow_nan=False, allow_infinity=False, width=64), min_size=1, max_size=60),
    epsilon=st.floats(0.05, 20),
)
def test_bounds_lie_on_the_public_grid(values: list[float], epsilon: float) -> None:
    found = noisy_statistics.bounds(np.asarray(values), units=len(values), epsilon=epsilon)
    grid = set(noisy_statistics._edges(1)) | set(noisy_statistics._edges(noisy_statistics.FINE))
    assert {found.minimum, found.maximum} - {None} <= grid
    if found.minimum is not None and found.maximum is not None:
        assert found.minimum < found.maximum


@pytest.mark.parametrize("epsilon", [0.1, 1.0])
def test_bounds_cover_most_rows(epsilon: float) -> None:
    rng = np.random.default_rng(1)

    def covered(values: np.ndarray[Any, Any]) -> float:
        found = noisy_statistics.bounds(values.astype(float), units=ROWS, epsilon=epsilon)
        low = -np.inf if found.minimum is None else found.minimum
        high = np.inf if found.maximum is None else found.maximum
        return float(((values >= low) & (values <= high)).mean())

    for values in (rng.normal(45, 5, ROWS), rng.integers(0, 6, ROWS), -rng.lognormal(8, 0.5, ROWS)):
        assert np.mean([covered(values) for _ in range(20)]) > 0.9


def test_bounds_do_not_follow_a_single_unit() -> None:
    values = np.append(np.full(ROWS, 50.0), 1e6)
    farthest = [noisy_statistics.bounds(values, units=len(values), epsilon=1.0).maximum for _ in range(50)]
    assert sum(maximum is not None and maximum < 1e6 for maximum in farthest) >= 40


@pytest.mark.heavy
def test_many_units_get_a_finer_grid() -> None:
    def usual(units: int) -> float:
        values = np.full(units, 50.0)
        found = [noisy_statistics.bounds(values, units=units, epsilon=1.0).maximum for _ in range(15)]
        return float(np.median([np.inf if maximum is None else maximum for maximum in found]))

    assert usual(ROWS) == 128.0
    assert usual(100_000) == 56.0


def test_a_private_schema_knows_what_many_units_share() -> None:
    found = published(people()).document["properties"]
    assert list(found) == ["name", "city", "age", "weight", "member"]
    assert found["name"] == {"type": ["string", "null"]}
    assert found["city"] == {"enum": ["Bern", "Graz", "Köln", None]}
    assert found["age"]["type"] == ["integer", "null"]
    assert found["age"]["minimum"] <= 18
    assert found["age"]["maximum"] >= 89
    assert found["member"] == {"type": ["boolean", "null"]}


def test_a_private_schema_accepts_the_table_s_own_rows() -> None:
    frame = people()
    validator = Draft202012Validator(dict(published(frame).document))
    rows = json.loads(frame.to_json(orient="records"))
    assert sum(validator.is_valid(row) for row in rows) >= 0.95 * len(rows)


def test_a_schema_of_few_units_falls_back_to_types() -> None:
    found = published(people(20), epsilon=0.2)
    kinds = [found.document["properties"][name] for name in ("name", "city")]
    assert kinds == [{"type": ["string", "null"]}] * 2
    assert "do not make up 90%" in found.choices[1].reason


def test_categories_that_would_shut_out_many_units_are_not_published() -> None:
    frame = pd.DataFrame({"title": ["none"] * 350 + [f"title {i}" for i in range(150)]})
    assert published(frame).document["properties"]["title"] == {"type": ["string", "null"]}


def test_declared_columns_are_free_of_charge_and_taken_as_they_are() -> None:
    declared = {
        "city": {"categories": ["Bern", "Graz", "Köln", "Wien"], "nullable": False},
        "age": {"minimum": 0, "maximum": 120, "nullable": False},
        "weight": {"minimum": 0},
        "name": {},
    }
    guarantee = {"schema_source": "private", "columns": declared}
    assert "city" not in paid_columns(TYPES, private(**guarantee).guarantee)
    found = published(people(), **guarantee).document
    assert found["properties"]["city"] == {"enum": ["Bern", "Graz", "Köln", "Wien"]}
    assert found["properties"]["age"] == {"type": "integer", "minimum": 0.0, "maximum": 120.0}
    assert found["properties"]["weight"] == {"type": ["number", "null"], "minimum": 0.0}
    assert found["required"] == ["city", "age"]


def test_a_declared_schema_looks_at_no_value() -> None:
    one, other = people(), people().assign(city="Rome", age=7, weight=1e9)
    assert published(one, schema_source="declared") == published(other, schema_source="declared")
    assert published(one, schema_source="declared").document["required"] == []


def test_no_private_schema_holds_text_lengths() -> None:
    for source in ("private", "declared"):
        text = json.dumps(dict(published(people(), schema_source=source).document))
        assert "Length" not in text


def test_a_raw_schema_says_that_it_is_outside() -> None:
    found = published(people(), schema_source="raw", strict=False)
    assert "outside the guarantee" in found.choices[0].reason


def test_the_share_is_divided_and_not_exceeded(monkeypatch: pytest.MonkeyPatch) -> None:
    spent: list[tuple[float, float]] = []
    categories, bounds = noisy_statistics.categories, noisy_statistics.bounds

    def count_categories(
        values: Any, *, units: int, epsilon: float, delta: float
    ) -> noisy_statistics.Categories:
        spent.append((epsilon, delta))
        return categories(values, units=units, epsilon=epsilon, delta=delta)

    def count_bounds(values: Any, *, units: int, epsilon: float) -> noisy_statistics.Bounds:
        spent.append((epsilon, 0.0))
        return bounds(values, units=units, epsilon=epsilon)

    monkeypatch.setattr(noisy_statistics, "categories", count_categories)
    monkeypatch.setattr(noisy_statistics, "bounds", count_bounds)
    published(people(), epsilon=0.8)
    assert len(spent) == 4
    assert sum(epsilon for epsilon, _ in spent) == pytest.approx(0.8)
    assert sum(delta for _, delta in spent) == pytest.approx(DELTA)


def test_only_one_record_of_each_unit_is_looked_at() -> None:
    frame = pd.DataFrame({"city": ["Bern"] * 300 + ["Graz"] * 300})
    columns, guarantee = distinct_columns(to_arrow(frame)), private().guarantee
    types, firsts = {"city": ColumnType.STRING}, np.arange(300)
    found = draw_schema(columns, types, firsts, guarantee, units=300, epsilon=8.0, delta=DELTA)
    assert found["city"].categories == ("Bern",)


def test_shares_go_by_the_public_number_of_units() -> None:
    """Only the table knows half of the units; what is published must not reveal how many these are."""
    columns = distinct_columns(to_arrow(pd.DataFrame({"city": ["Bern"] * 300})))
    types, guarantee = {"city": ColumnType.STRING}, private().guarantee
    found = draw_schema(columns, types, np.arange(300), guarantee, units=600, epsilon=8.0, delta=DELTA)
    assert found["city"].categories is None


def test_a_column_without_a_type_has_categories_or_nothing() -> None:
    table = private_table({"v": [1, "x", True, None] * 200, "w": list(range(800))})
    firsts, guarantee = np.arange(800), private().guarantee
    drawn = draw_schema(table.columns, table.types, firsts, guarantee, units=800, epsilon=8.0, delta=DELTA)
    found = publish_schema(table.types, guarantee, drawn).document
    assert found["properties"] == {"v": {"enum": [1, "x", True, None]}, "w": {}}
    validator = schema_validator(found)
    assert parse_completion('{"v":1,"w":[1,"a"]}\n{"v":2,"w":1}\n', validator).valid == (
        {"v": 1, "w": [1, "a"]},
    )


def test_a_declared_type_leaves_the_rest_to_noise() -> None:
    declared = {"age": {"type": "integer", "nullable": False}, "weight": {"type": "number", "minimum": 0}}
    found = published(people(), columns=declared).document
    assert found["properties"]["age"]["type"] == "integer"
    assert found["properties"]["age"]["maximum"] >= 89
    assert found["properties"]["weight"] == {"type": ["number", "null"], "minimum": 0.0}
    assert found["required"] == ["age"]


def test_a_count_hides_a_unit_and_is_near() -> None:
    counts = [noisy_statistics.count(1000, epsilon=0.5) for _ in range(100)]
    # The mean of 100 with a standard deviation of 2.8 each, and six of its own.
    assert abs(np.mean(counts) - 1000) < 6 * np.sqrt(2) * 2 / 10
    assert len(set(counts)) > 5


@pytest.mark.heavy
def test_a_count_costs_no_more_than_it_may() -> None:
    """The likelihood ratio of neighbours above a threshold: half the noise would double its logarithm."""
    above = [sum(noisy_statistics.count(true, epsilon=1.0) > 50 for _ in range(1500)) for true in (50, 51)]
    assert 0.5 < np.log(above[1] / above[0]) < 1.3


def test_the_log_holds_no_value(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level("INFO"):
        published(people())
    assert "schema of city: categories with noise because it may be text and is not declared" in caplog.text
    assert "Bern" not in caplog.text


def test_dates_and_nested_values_are_not_looked_at() -> None:
    frame = pd.DataFrame({"when": pd.date_range("2024-01-01", periods=300), "tags": [["a"]] * 300})
    found = published(frame).document["properties"]
    assert found == {"when": {"type": ["string", "null"]}, "tags": {"type": ["array", "object", "null"]}}
