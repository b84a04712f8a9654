"""A table is refused for the same reasons in every way it comes in, or the difference is NSS's own."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from nss_train.backend import HuggingFaceBackend, Workdir
from nss_train.config import parse_config
from nss_train.contract import ModelPolicy, Request
from nss_train.data.prepared import Entry
from nss_train.errors import UserError
from nss_train.stages.preparation import prepare, run

Way = Callable[[pd.DataFrame, dict[str, Any], Path, Path], tuple[str, ...]]
"""A function of a table, a config, a model and a folder that returns the warnings."""


def as_job(frame: pd.DataFrame, config: dict[str, Any], model: Path, folder: Path) -> tuple[str, ...]:
    for name in ("in", "out"):
        (folder / name).mkdir()
    frame.to_parquet(folder / "in" / "t.parquet")
    policy = ModelPolicy(models_dir=str(model.parent))
    request = Request(
        job_id="test-0001", table="t.parquet", config=parse_config(config), seed=1, policy=policy
    )
    return tuple(run(folder, request, report=lambda _: None).figures["warnings"])


def as_examples(entry: Entry) -> Way:
    def way(frame: pd.DataFrame, config: dict[str, Any], model: Path, folder: Path) -> tuple[str, ...]:
        frame.to_parquet(folder / "t.parquet")
        return prepare(folder / "t.parquet", parse_config(config), model=model, seed=1, entry=entry).warnings

    return way


def as_facade(frame: pd.DataFrame, config: dict[str, Any], model: Path, folder: Path) -> tuple[str, ...]:
    workdir = Workdir(base_path=folder)
    given = {"training_dataset": frame, "workdir": workdir, "model_metadata": None, "seed": 1}
    backend = HuggingFaceBackend(params=parse_config(config), **given)
    backend.prepare_training_data()
    return backend.prepared.warnings


WHOLE: dict[str, Way] = {"job": as_job, "examples of a table": as_examples(Entry.PROCESS_DATA)}
SPLIT: dict[str, Way] = {"facade": as_facade, "examples of a split": as_examples(Entry.BACKEND)}
FRAME = pd.DataFrame({"g": [f"g{n % 12}" for n in range(240)], "o": [n / 2 for n in range(240)], "v": "x"})


def gaps(column: str) -> pd.DataFrame:
    return FRAME.assign(**{column: FRAME[column].where(FRAME.index % 50 != 7)})


LISTS = FRAME.assign(g=[[1.0]] * 240, o=[[1.0]] * 240)
REFUSED_EVERYWHERE = {
    "a group column with gaps": (gaps("g"), {"group_training_examples_by": "g"}, r"'g' has missing values"),
    "a group column that is not there": (
        FRAME,
        {"group_training_examples_by": "h"},
        r"'h' not found",
    ),
    "a group column of lists": (LISTS, {"group_training_examples_by": "g"}, r"= 'g': it holds lists"),
    "an order column of lists": (
        LISTS.assign(g="x"),
        {"group_training_examples_by": "g", "order_training_examples_by": "o"},
        r"= 'o': it holds lists",
    ),
}
OF_WHOLE_TABLES = {
    "a column of nulls": (FRAME.assign(e=None), r"e = None.*nothing but nulls", "e: nothing but nulls"),
    "few rows": (FRAME.head(60), r"rows = 60: at least 200", "the training split has 60 rows"),
}


def config_of(data: dict[str, Any], model: Path) -> dict[str, Any]:
    training = {"pretrained_model": str(model), "num_input_records_to_sample": 240}
    return {"data": {"holdout": 0, "random_state": 1} | data, "training": training}


@pytest.mark.parametrize("way", [*WHOLE, *SPLIT])
@pytest.mark.parametrize("kind", REFUSED_EVERYWHERE)
def test_what_nobody_can_train_is_refused_whichever_way_it_comes(
    kind: str, way: str, tiny_model: Path, tmp_path: Path
) -> None:
    frame, data, says = REFUSED_EVERYWHERE[kind]
    with pytest.raises(UserError, match=says):
        (WHOLE | SPLIT)[way](frame, config_of(data, tiny_model), tiny_model, tmp_path)


@pytest.mark.parametrize("way", [*WHOLE, *SPLIT])
@pytest.mark.parametrize("kind", OF_WHOLE_TABLES)
def test_what_is_checked_of_whole_tables_is_told_of_splits(
    kind: str, way: str, tiny_model: Path, tmp_path: Path
) -> None:
    frame, says, warning = OF_WHOLE_TABLES[kind]
    config = config_of({}, tiny_model)
    if way in WHOLE:
        with pytest.raises(UserError, match=says):
            WHOLE[way](frame, config, tiny_model, tmp_path)
    else:
        told = SPLIT[way](frame, config, tiny_model, tmp_path)
        assert any(one.startswith(warning) for one in told), told


@pytest.mark.parametrize("way", [*WHOLE, *SPLIT])
def test_a_model_below_a_folder_of_another_family_is_told(way: str, tiny_model: Path, tmp_path: Path) -> None:
    model = shutil.copytree(tiny_model, tmp_path / "qwen" / tiny_model.name)
    told = (WHOLE | SPLIT)[way](FRAME, config_of({}, model), model, tmp_path)
    assert any("trained as Qwen" in one and "config.json names SmolLM2" in one for one in told), told


@pytest.mark.parametrize("way", [*WHOLE, *SPLIT])
def test_records_without_an_order_come_last_and_that_is_told(
    way: str, tiny_model: Path, tmp_path: Path
) -> None:
    data = {"group_training_examples_by": "g", "order_training_examples_by": "o"}
    told = (WHOLE | SPLIT)[way](gaps("o"), config_of(data, tiny_model), tiny_model, tmp_path)
    assert "o: 5 values are missing; these records come last in their groups" in told
