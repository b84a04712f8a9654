"""The plan of a private table, and nothing published that reveals the rest."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from nss_train.config.ignored import ignored
from nss_train.contract import (
    StageResult,
)
from nss_train.errors import ParameterError
from nss_train.privacy.__main__ import plan_of
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.schema import noisy_statistics
from nss_train.stages import preparation
from tests.unit.stages.private.runs import CONTEXT, ROWS, SMALL, read, request, run, visits


def test_the_plan_is_written_and_shown(strict: tuple[Path, StageResult]) -> None:
    folder, result = strict
    plan = read(folder, "privacy")
    assert result.figures["privacy"] == plan
    assert (plan["unit"], plan["units"], plan["epsilon"]) == ("record", ROWS, 8.0)
    assert (plan["adjacency"], plan["units_source"], plan["holdout"]) == ("zero-out", "rows", 0)
    assert [(product["name"], product["epsilon"]) for product in plan["by_products"]] == [
        ("count", pytest.approx(0.08)),
        ("schema", pytest.approx(0.8)),
    ]
    promise = PrivacyPlan.model_validate(plan).promise()
    assert "whether any one record was in the table or a null record without effect" in promise
    assert "n = 400 is public (rows of the file)" in promise


def test_a_dataset_without_a_name_gets_one_that_no_table_tells(folder: Path, models: Path) -> None:
    names = []
    for asked in (
        request(models),
        request(models),
        request(models).model_copy(update={"budget_name": "job-ab"}),
    ):
        run(folder, asked)
        names.append(read(folder, "privacy")["dataset"])
    assert names[0] != names[1]
    assert all(name.startswith("job-") and len(name) == 4 + 32 for name in names[:2])
    assert names[2] == "job-ab"


def test_nothing_is_set_aside_for_a_schema_that_is_declared(folder: Path, models: Path) -> None:
    columns = {
        "ward": {"categories": ["east", "west"]},
        "days": {"minimum": 0, "maximum": 365},
        "patient": {"minimum": 0},
    }
    run(folder, request(models, guarantee={"columns": columns}))
    assert [product["name"] for product in read(folder, "privacy")["by_products"]] == ["count"]


def test_figures_of_a_strict_job_hold_what_is_public(strict: tuple[Path, StageResult]) -> None:
    _, result = strict
    assert set(result.figures) == {"columns", "cost", "data_fraction", "privacy", "promise", "units", "seed"}


def test_a_strict_job_leaves_no_table_and_limits_of_the_model(folder: Path, models: Path) -> None:
    run(folder, request(models, data={"holdout": 0.1}))
    plan = read(folder, "privacy")
    assert (plan["units"], plan["holdout"]) == (ROWS, 0.1)
    assert plan["sampling_rate"] == pytest.approx(8 / (0.9 * ROWS))
    assert not list((folder / "out").glob("*.csv"))
    assert read(folder, "metadata")["max_tokens_per_example"] == CONTEXT
    assert read(folder, "statistics")["tokens_per_example"]["max"] < CONTEXT


def test_a_job_that_is_not_strict_publishes_as_ever(folder: Path, models: Path) -> None:
    result = run(folder, request(models, guarantee={"strict": False, "schema_source": "raw"}))
    assert (folder / "out" / "training.csv").exists()
    longest = read(folder, "statistics")["tokens_per_example"]["max"]
    assert read(folder, "metadata")["max_tokens_per_example"] == longest
    assert read(folder, "schema")["properties"]["ward"] == {"enum": ["east", "west"]}
    assert result.figures["rows"] == ROWS
    assert {c["name"]: c["value"] for c in read(folder, "choices")}["training.rope_scaling_factor"] == 1


def test_choices_say_how_each_column_is_described(strict: tuple[Path, StageResult]) -> None:
    folder, _ = strict
    choices = {choice["name"]: choice for choice in read(folder, "choices")}
    assert choices["schema.days"]["value"] == "declared"
    assert choices["schema.ward"]["value"] == "2 categories"
    assert choices["training.rope_scaling_factor"]["value"] == 1
    assert choices["guarantee.units"]["value"] == ROWS


def test_all_reasons_against_a_plan_come_in_one_error(folder: Path, models: Path) -> None:
    asked = request(
        models,
        privacy={"dp_enabled": True, "delta": 0.5},
        training={"batch_size": 500, "validation_ratio": 0.1},
        guarantee={"schema_source": "raw"},
        data={"holdout": 5},
    )
    with pytest.raises(ParameterError) as caught:
        run(folder, asked)
    assert [problem.field for problem in caught.value.problems] == [
        "training.validation_ratio",
        "guarantee.schema_source",
        "data.holdout",
        "privacy.delta",
        "training.batch_size",
    ]


@pytest.mark.parametrize(
    "sections",
    [
        {},
        {"guarantee": {"unit_column": "patient", "max_records_per_unit": 2, "units": 300}},
        {"data": {"holdout": 0.2, "group_training_examples_by": "patient"}, "guarantee": {"units": 300}},
    ],
    ids=["records", "a unit column", "groups, held out"],
)
def test_the_estimate_is_the_plan_of_the_job(models: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    table = tmp_path / "visits.csv"
    visits().to_csv(table, index=False)
    config = request(models, **sections).config
    prepared = preparation.prepare(table, config, model=models / "SmolLM2-small", seed=1)
    assert prepared.plan is not None
    planned, estimated = (
        plan.model_dump(exclude={"dataset", "without_effect"})
        for plan in (prepared.plan, plan_of(table, config).plan)
    )
    assert estimated == planned


def test_an_estimate_counts_values_exactly_and_draws_nothing(
    models: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(noisy_statistics, "count", None)
    visits().to_csv(tmp_path / "visits.csv", index=False)
    config = request(models, guarantee={"unit_column": "patient"}, **SMALL).config
    plan = plan_of(tmp_path / "visits.csv", config).plan
    assert (plan.units, plan.units_source) == (visits()["patient"].nunique(), "noisy")


@pytest.mark.parametrize(
    ("sections", "places", "remedy"),
    [
        ({}, 12, "guarantee.units = 12: n = 12 places; at least 200"),
        ({"data": {"holdout": 0.02}}, 400, "8 of 400 places are held out on average; take at least 10"),
        ({"data": {"holdout": 400}}, 400, "400 of 400 places"),
        (
            {"guarantee": {"unit_column": "ward", "units": "rows"}},
            400,
            "values of 'ward' are counted with noise or declared",
        ),
    ],
)
def test_a_number_that_allows_no_training_is_refused_by_public_facts(
    sections: dict[str, Any], places: int, remedy: str, folder: Path, models: Path
) -> None:
    visits().head(places).to_csv(folder / "in" / "visits.csv", index=False)
    with pytest.raises(ParameterError) as caught:
        run(folder, request(models, **sections))
    assert remedy in str(caught.value)


def test_a_wrong_cut_is_found_on_invented_records_and_quotes_nothing_real(
    folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("nss_train.data.tokenization.fragments._cut", lambda *_: 1)
    frame = visits().assign(ward="confidential")
    frame.to_csv(folder / "in" / "visits.csv", index=False)
    with pytest.raises(ParameterError, match="gives texts other ids by what surrounds them") as caught:
        run(folder, request(models))
    assert "confidential" not in str(caught.value)


def test_a_random_state_has_no_effect_and_says_so(models: Path) -> None:
    given = {"data": {"holdout": 0.1, "random_state": 4}}
    config = request(models, **given).config
    assert [*ignored(config, given)] == [
        "data.random_state has no effect under privacy: who is held out is secret. Leave it out"
    ]
    # Nobody gave this one: it was drawn.
    assert [*ignored(config, {"data": {"holdout": 0.1}})] == []
