"""A private table prepared: each unit once, whatever its records are."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute
import pytest

from nss_train.contract import (
    HOLDOUT_KEY,
    KEPT_DRAW,
    StageResult,
)
from nss_train.data.examples import SCHEMA
from nss_train.errors import ParameterError
from nss_train.stages import preparation
from tests.unit.stages.private.runs import (
    KEY,
    ROWS,
    SMALL,
    VOCABULARY,
    Supervisor,
    arrow,
    prepared_bytes,
    read,
    request,
    run,
    visits,
)


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


def test_no_records_are_no_training(folder: Path, models: Path) -> None:
    with pytest.raises(ParameterError, match="Nothing to train on"):
        run(folder, request(models, training={"num_input_records_to_sample": 0}))


def test_without_privacy_there_are_no_units(folder: Path, models: Path) -> None:
    result = run(folder, request(models, privacy=None))
    assert not (folder / "out" / "units.arrow").exists()
    assert not (folder / "out" / "privacy.json").exists()
    assert "units" not in result.figures


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


def test_a_record_with_a_token_that_the_model_lacks_ends_no_training(
    folder: Path, models: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = tmp_path_factory.mktemp("added")
    model = shutil.copytree(models / "SmolLM2-small", other / "SmolLM2-small")
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    token = tokenizer["added_tokens"][0] | {"id": VOCABULARY, "content": "zebra", "special": False}
    (model / "tokenizer.json").write_text(
        json.dumps(tokenizer | {"added_tokens": [*tokenizer["added_tokens"], token]})
    )
    table = visits().astype({"ward": object})
    table.loc[7, "ward"] = "zebra"
    table.to_csv(folder / "in" / "visits.csv", index=False)
    run(folder, request(other))
    ids = arrow(folder, "train").column("input_ids").combine_chunks().values
    assert pa.compute.max(ids).as_py() < VOCABULARY
    assert arrow(folder, "train").num_rows == ROWS - 1
