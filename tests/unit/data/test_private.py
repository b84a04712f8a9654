"""A private table prepared: each unit once, a plan, and nothing that reveals the rest."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nss_train.config import parse_config
from nss_train.config.ignored import ignored
from nss_train.contract import (
    DRAW,
    HOLDOUT_KEY,
    KEPT_DRAW,
    PROPOSED_DRAW,
    Event,
    ModelPolicy,
    Request,
    StageResult,
)
from nss_train.data.examples import SCHEMA
from nss_train.errors import NSSTrainError, ParameterError
from nss_train.privacy.__main__ import plan_of
from nss_train.privacy.accounting import accountant
from nss_train.privacy.accounting.plan import PrivacyPlan
from nss_train.privacy.schema import noisy_statistics
from nss_train.stages import preparation

ROWS = 400
CONTEXT = 2048
KEY = bytes(range(32))


@pytest.fixture(scope="module", autouse=True)
def noise() -> Iterator[None]:
    """Skip the search for the noise, which takes seconds and is tested elsewhere."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(accountant, "noise_multiplier", lambda **_: 1.0)
        patch.setattr(PrivacyPlan, "spent", lambda plan, steps, *_: plan.epsilon * steps / plan.steps)
        yield


@pytest.fixture(scope="module")
def models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make a model folder that is enough to prepare for."""
    root = tmp_path_factory.mktemp("models")
    folder = root / "SmolLM2-small"
    folder.mkdir()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(base_model / file, folder / file)
    (folder / "config.json").write_text(json.dumps({"max_position_embeddings": CONTEXT}))
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return root


def visits() -> pd.DataFrame:
    rng = np.random.default_rng(0)
    return pd.DataFrame(
        {
            "patient": np.sort(rng.integers(0, 200, ROWS)),
            "ward": rng.choice(["east", "west"], ROWS),
            "days": rng.integers(1, 30, ROWS),
        }
    )


def request(models: Path, **sections: Any) -> Request:
    training = {"pretrained_model": "SmolLM2-small", "num_input_records_to_sample": 1000}
    given = {
        "privacy": {"dp_enabled": True, "epsilon": 8.0},
        "data": {"holdout": 0},
        **sections,
        "training": training | sections.get("training", {}),
    }
    return Request(
        job_id="job-0000001",
        table="visits.csv",
        config=parse_config(given),
        seed=3,
        policy=ModelPolicy(models_dir=str(models)),
    )


def stage_folder(folder: Path) -> Path:
    for name in ("in", "out"):
        (folder / name).mkdir()
    visits().to_csv(folder / "in" / "visits.csv", index=False)
    return folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return stage_folder(tmp_path)


@pytest.fixture(scope="module")
def strict(models: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, StageResult]:
    """Prepare a job with the defaults of a private one."""
    folder = stage_folder(tmp_path_factory.mktemp("strict"))
    return folder, run(folder, request(models, guarantee={"columns": {"days": {"minimum": 0}}}))


def ignore(_event: Event) -> None:
    """Ignore the event."""


def run(folder: Path, asked: Request) -> StageResult:
    return preparation.run(folder, asked, report=ignore)


def read(folder: Path, name: str) -> Any:
    return json.loads((folder / "out" / f"{name}.json").read_text())


def arrow(folder: Path, name: str) -> pa.Table:
    with pa.ipc.open_stream(folder / "out" / f"{name}.arrow") as stream:
        return stream.read_all()


def test_each_record_stands_in_the_examples_once(strict: tuple[Path, StageResult]) -> None:
    folder, result = strict
    assert arrow(folder, "train").num_rows == ROWS
    assert arrow(folder, "units").column("unit").to_pylist() == list(range(ROWS))
    assert result.figures["data_fraction"] == 1000 / ROWS


def test_a_value_s_first_rows_are_examples_of_one_unit(folder: Path, models: Path) -> None:
    guarantee = {"unit_column": "patient", "max_records_per_unit": 2, "units": 250}
    run(folder, request(models, guarantee=guarantee))
    sizes = visits().groupby("patient", sort=False).size().clip(upper=2).tolist()
    units = arrow(folder, "units").column("unit").to_pylist()
    assert units == np.repeat(np.arange(len(sizes)), sizes).tolist()
    assert arrow(folder, "train").num_rows == len(units)
    plan = read(folder, "privacy")
    assert (plan["unit"], plan["units"], plan["units_source"]) == ("value of patient", 250, "declared")
    assert plan["sampling_rate"] == 8 / 250


def test_a_group_is_one_example_and_one_unit(folder: Path, models: Path) -> None:
    asked = request(models, data={"group_training_examples_by": "patient", "holdout": 0}, **SMALL)
    run(folder, asked)
    patients = visits()["patient"].nunique()
    assert arrow(folder, "units").column("unit").to_pylist() == list(range(patients))
    assert arrow(folder, "train").num_rows == patients
    assert read(folder, "metadata")["max_records_per_group"] is None


def test_how_many_records_units_have_does_not_decide_on_the_steps(folder: Path, models: Path) -> None:
    asked = request(models, guarantee={"unit_column": "patient", "dataset": "visits", "units": 250})
    run(folder, asked)
    plan = {**read(folder, "privacy"), "without_effect": None}
    assert plan["dataset"] == "visits"
    more = pd.concat([visits(), visits()[visits()["patient"] == 7]], ignore_index=True)
    more.to_csv(folder / "in" / "visits.csv", index=False)
    run(folder, asked)
    assert {**read(folder, "privacy"), "without_effect": None} == plan


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


def test_validation_outside_the_guarantee_shares_no_unit_with_training(folder: Path, models: Path) -> None:
    guarantee = {"strict": False, "unit_column": "patient", "units": 250}
    run(folder, request(models, guarantee=guarantee, training={"validation_ratio": 0.2}))
    assert read(folder, "privacy")["sampling_rate"] == pytest.approx(8 / (0.8 * 250))
    rows = arrow(folder, "train").num_rows + arrow(folder, "validation").num_rows
    assert rows == ROWS
    patients = [
        {tuple(ids) for ids in arrow(folder, side).column("input_ids").to_pylist()}
        for side in ("train", "validation")
    ]
    assert patients[1]
    assert not patients[0] & patients[1]


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


def test_no_records_are_no_training(folder: Path, models: Path) -> None:
    with pytest.raises(ParameterError, match="Nothing to train on"):
        run(folder, request(models, training={"num_input_records_to_sample": 0}))


def test_without_privacy_there_are_no_units(folder: Path, models: Path) -> None:
    result = run(folder, request(models, privacy=None))
    assert not (folder / "out" / "units.arrow").exists()
    assert not (folder / "out" / "privacy.json").exists()
    assert "units" not in result.figures


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


class Supervisor:
    """A supervisor that puts the first draw of a job on record, and answers with it from then on."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.kept: bytes | None = None
        self.prices: list[PrivacyPlan] = []

    def __call__(self, event: Event) -> None:
        if event.action == DRAW:
            self.prices.append(PrivacyPlan.model_validate(event.fields["price"]))
            self.kept = self.kept or (self.folder / PROPOSED_DRAW).read_bytes()
            (self.folder / KEPT_DRAW).write_bytes(self.kept)


NOISY = {
    "guarantee": {"unit_column": "patient"},
    "data": {"holdout": 0.1},
    "preflight": {"disabled_checks": ["dataset.size"]},
}
SMALL = {"preflight": {"disabled_checks": ["dataset.size"]}}


def prepared_bytes(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "out").iterdir())}


def test_a_repeated_stage_uses_the_draw_that_is_kept_and_makes_the_same_bytes(
    folder: Path, models: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    counts = iter([190, 3, 150, 9])
    monkeypatch.setattr(noisy_statistics, "count", lambda *_, **__: next(counts))
    asked = request(models, **NOISY).model_copy(update={"keep_draw": True, "budget_name": "visits"})
    supervisor = Supervisor(folder)
    results, outputs = [], []
    for _ in range(2):
        results.append(preparation.run(folder, asked, report=supervisor))
        outputs.append(prepared_bytes(folder))
        (folder / KEPT_DRAW).unlink()
    assert outputs[0] == outputs[1]
    assert results[0] == results[1]
    plan = read(folder, "privacy")
    assert (plan["units"], plan["without_effect"], plan["holdout"]) == (190, 3, 0.1)
    # The second attempt drew other numbers, and the price is that of the by-products alone.
    assert json.loads((folder / PROPOSED_DRAW).read_bytes())["effective"] == 150
    assert supervisor.prices[0] == supervisor.prices[1]
    price = supervisor.prices[0]
    assert (price.steps, price.dataset, price.unit) == (0, "visits", "value of patient")
    assert [product.name for product in price.by_products] == ["count", "schema"]
    assert price.by_products[0].epsilon == pytest.approx(0.08)


def test_the_same_key_holds_out_the_same_units_in_another_table(folder: Path, models: Path) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    asked = request(models, data={"holdout": 0.1})

    def trained(frame: pd.DataFrame) -> set[tuple[int, ...]]:
        frame.to_csv(folder / "in" / "visits.csv", index=False)
        run(folder, asked)
        return {tuple(ids) for ids in arrow(folder, "train").column("input_ids").to_pylist()}

    one = pd.DataFrame({"patient": [-1], "ward": ["north"], "days": [3]})
    before, after = trained(visits()), trained(pd.concat([one, visits()[::-1]]))
    assert len(before - after) == 0
    assert len(after - before) <= 1


def test_a_key_is_in_no_output(folder: Path, models: Path) -> None:
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    result = run(folder, request(models, data={"holdout": 0.1}))
    shown = result.model_dump_json().encode() + b"".join(prepared_bytes(folder).values())
    for text in (KEY[:8], KEY.hex()[:16].encode(), KEY.hex()[:16].upper().encode()):
        assert text not in shown


def test_a_table_without_any_effect_is_prepared(folder: Path, models: Path) -> None:
    (folder / "in" / "visits.csv").write_text("patient,ward,days\n" + ",,\n" * ROWS)
    run(folder, request(models, data={"holdout": 0.1}))
    assert arrow(folder, "train").schema == SCHEMA
    assert arrow(folder, "train").num_rows == 0
    assert arrow(folder, "units").num_rows == 0
    plan = read(folder, "privacy")
    assert plan["units"] == ROWS
    assert plan["without_effect"] == pytest.approx(ROWS, abs=150)


@pytest.mark.parametrize("strict", [True, False])
def test_null_records_change_nothing_but_who_is_trained_on(folder: Path, models: Path, strict: bool) -> None:
    """All that is published of neighbours is the same, given the same draw."""
    (folder / "in" / "private").mkdir()
    (folder / "in" / HOLDOUT_KEY).write_bytes(KEY)
    guarantee = {"strict": strict, "schema_source": "declared"}
    asked = request(models, data={"holdout": 0.1}, guarantee=guarantee).model_copy(
        update={"keep_draw": True, "budget_name": "b"}
    )
    supervisor = Supervisor(folder)
    rows = visits().to_csv(index=False).splitlines()
    figures, documents, tokens = [], [], []
    for line in (rows[7], ",,", "x,y,z,w", '"', "1,", "9" * 5000 + ",a,b"):
        (folder / "in" / "visits.csv").write_text("\n".join([*rows[:7], line, *rows[8:]]) + "\n")
        figures.append(preparation.run(folder, asked, report=supervisor).figures)
        found = prepared_bytes(folder)
        documents.append({n: b for n, b in found.items() if n.endswith(".json") and n != "statistics.json"})
        tokens.append([tuple(ids) for ids in arrow(folder, "train").column("input_ids").to_pylist()])
        (folder / KEPT_DRAW).unlink()
    others = [ids for ids in tokens[1] if ids in set(tokens[0])]
    for changed in tokens:
        assert [ids for ids in changed if ids in set(others)] == others
        assert len(changed) - len(others) <= 1
    if strict:
        assert all(document == documents[0] for document in documents)
        assert all(figure == figures[0] for figure in figures)


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
    with pytest.raises(NSSTrainError, match="differs from tokenizing the whole record") as caught:
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
