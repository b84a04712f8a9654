"""A private table prepared: each unit once, a plan, and nothing that tells of the rest."""

from __future__ import annotations

import hashlib
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from nss_train.config import parse_config
from nss_train.contract import Event, ModelPolicy, Request, StageResult
from nss_train.data import prepare
from nss_train.errors import ParameterError
from nss_train.privacy.__main__ import estimate

ROWS = 400
CONTEXT = 2048


@pytest.fixture(scope="module")
def models(base_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model folder that is enough to prepare for."""
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
        "data": {"holdout": 0, "random_state": 1},
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
    """A job with the defaults of a private one; the search for its noise takes seconds."""
    folder = stage_folder(tmp_path_factory.mktemp("strict"))
    return folder, run(folder, request(models, guarantee={"columns": {"days": {"minimum": 0}}}))


def ignore(_event: Event) -> None:
    """Nobody listens."""


def run(folder: Path, asked: Request) -> StageResult:
    return prepare.run(folder, asked, report=ignore)


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
    guarantee = {"unit_column": "patient", "max_records_per_unit": 2}
    run(folder, request(models, guarantee=guarantee))
    sizes = visits().groupby("patient").size().clip(upper=2).tolist()
    units = arrow(folder, "units").column("unit").to_pylist()
    assert units == np.repeat(np.arange(len(sizes)), sizes).tolist()
    assert arrow(folder, "train").num_rows == len(units)
    assert read(folder, "privacy")["unit"] == "value of patient"
    assert read(folder, "privacy")["units"] == len(sizes)


def test_a_group_is_one_example_and_one_unit(folder: Path, models: Path) -> None:
    run(folder, request(models, data={"group_training_examples_by": "patient", "holdout": 0}))
    patients = visits()["patient"].nunique()
    assert arrow(folder, "units").column("unit").to_pylist() == list(range(patients))
    assert arrow(folder, "train").num_rows == patients
    assert read(folder, "metadata")["max_records_per_group"] is None


def test_how_many_records_units_have_does_not_decide_on_the_steps(folder: Path, models: Path) -> None:
    asked = request(models, guarantee={"unit_column": "patient", "dataset": "visits"})
    run(folder, asked)
    plan = read(folder, "privacy")
    assert plan["dataset"] == "visits"
    more = pd.concat([visits(), visits()[visits()["patient"] == 7]], ignore_index=True)
    more.to_csv(folder / "in" / "visits.csv", index=False)
    run(folder, asked)
    assert read(folder, "privacy") == plan


def test_the_plan_is_written_and_shown(strict: tuple[Path, StageResult]) -> None:
    folder, result = strict
    plan = read(folder, "privacy")
    assert result.figures["privacy"] == plan
    assert (plan["unit"], plan["units"], plan["epsilon"]) == ("record", ROWS, 8.0)
    table = (folder / "in" / "visits.csv").read_bytes()
    assert plan["dataset"] == hashlib.sha256(table).hexdigest()[:32]
    assert [product["epsilon"] for product in plan["by_products"]] == [pytest.approx(0.8)]


def test_nothing_is_set_aside_for_a_schema_that_is_declared(folder: Path, models: Path) -> None:
    columns = {
        "ward": {"categories": ["east", "west"]},
        "days": {"minimum": 0, "maximum": 365},
        "patient": {"minimum": 0},
    }
    run(folder, request(models, guarantee={"columns": columns}))
    assert read(folder, "privacy")["by_products"] == []


def test_figures_of_a_strict_job_hold_what_is_public(strict: tuple[Path, StageResult]) -> None:
    _, result = strict
    assert set(result.figures) == {"columns", "data_fraction", "privacy", "units", "seed"}


def test_a_strict_job_leaves_no_table_and_limits_of_the_model(folder: Path, models: Path) -> None:
    run(folder, request(models, data={"holdout": 0.1, "random_state": 1}))
    assert read(folder, "privacy")["units"] == 0.9 * ROWS
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


def test_validation_outside_the_guarantee_shares_no_unit_with_training(folder: Path, models: Path) -> None:
    guarantee = {"strict": False, "unit_column": "patient"}
    run(folder, request(models, guarantee=guarantee, training={"validation_ratio": 0.2}))
    patients = visits()["patient"].nunique()
    assert read(folder, "privacy")["units"] == patients - int(np.ceil(0.2 * patients))
    rows = arrow(folder, "train").num_rows + arrow(folder, "validation").num_rows
    assert rows == ROWS


def test_choices_say_how_each_column_is_described(strict: tuple[Path, StageResult]) -> None:
    folder, _ = strict
    choices = {choice["name"]: choice for choice in read(folder, "choices")}
    assert choices["schema.days"]["value"] == "declared"
    assert choices["schema.ward"]["value"] == "2 categories"
    assert choices["training.rope_scaling_factor"]["value"] == 1


def test_all_reasons_against_a_plan_come_in_one_error(folder: Path, models: Path) -> None:
    asked = request(
        models,
        privacy={"dp_enabled": True, "delta": 0.5},
        training={"batch_size": 500, "validation_ratio": 0.1},
        guarantee={"columns": {"ward_no": {}}, "schema_source": "raw"},
    )
    with pytest.raises(ParameterError) as caught:
        run(folder, asked)
    assert [problem.field for problem in caught.value.problems] == [
        "training.validation_ratio",
        "guarantee.schema_source",
        "guarantee.columns.ward_no",
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
        {"guarantee": {"unit_column": "patient", "max_records_per_unit": 2}},
        {"data": {"holdout": 0.2, "random_state": 1, "group_training_examples_by": "patient"}},
    ],
    ids=["records", "a unit column", "groups, held out"],
)
def test_the_estimate_is_the_plan_of_the_job(models: Path, tmp_path: Path, sections: dict[str, Any]) -> None:
    table = tmp_path / "visits.csv"
    visits().to_csv(table, index=False)
    config = request(models, **{"privacy": {"dp_enabled": True, "epsilon": 0.5}} | sections).config
    prepared = prepare.prepare(table, config, model=models / "SmolLM2-small", seed=1)
    assert prepared.plan is not None
    planned, estimated = (
        plan.model_dump(exclude={"dataset"}) for plan in (prepared.plan, estimate(table, config))
    )
    assert estimated == planned
