"""The name of a base model leads to one place, and a wrong one says which names are near."""

from __future__ import annotations

from pathlib import Path

import pytest

from nss_train.config import parse_config
from nss_train.contract import ModelPolicy
from nss_train.model_names import folder_of, may_be_of_the_hub, missing_models, models_in, unknown


@pytest.fixture
def policy(tmp_path: Path) -> ModelPolicy:
    for name in ("SmolLM2-135M", "TinyLlama", ".hidden"):
        (tmp_path / "models" / name).mkdir(parents=True)
    (tmp_path / "models" / "notes.txt").touch()
    (tmp_path / "elsewhere").mkdir()
    return ModelPolicy(models_dir=str(tmp_path / "models"), allow_paths=False, allow_hub=False)


def test_models_are_the_visible_folders(policy: ModelPolicy) -> None:
    assert models_in(Path(policy.models_dir)) == ["SmolLM2-135M", "TinyLlama"]
    assert models_in(Path(policy.models_dir) / "none") == []


@pytest.mark.parametrize(
    "name",
    ["../elsewhere", "", "  ", "store:models/x", "TinyLlama/../../elsewhere", "x" * 5_000, "TinyLlama\0"],
)
def test_a_name_leads_to_no_folder_outside(name: str, policy: ModelPolicy) -> None:
    assert folder_of(name, policy) is None


def test_a_path_leads_where_it_says_only_if_the_operator_allows_paths(
    policy: ModelPolicy, tmp_path: Path
) -> None:
    name = str(tmp_path / "elsewhere")
    assert folder_of(name, policy) is None
    assert folder_of(name, policy.model_copy(update={"allow_paths": True})) == tmp_path / "elsewhere"


@pytest.mark.parametrize(
    ("name", "may"),
    [("owner/model", True), ("/some/model", False), ("../model", False), ("store:m", False)],
)
def test_the_hub_is_asked_for_names_alone(name: str, may: bool, policy: ModelPolicy) -> None:
    assert may_be_of_the_hub(name, policy.model_copy(update={"allow_hub": True})) is may
    assert not may_be_of_the_hub(name, policy)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("smollm2-135m", "did you mean SmolLM2-135M?"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "did you mean SmolLM2-135M?"),
        ("gpt", "which has SmolLM2-135M, TinyLlama;"),
        ("store:models/x", "the store has no files below that key"),
    ],
)
def test_an_unknown_name_says_which_are_near(name: str, says: str, policy: ModelPolicy) -> None:
    assert says in unknown(name, policy).remedy


def test_of_many_models_ten_are_listed(tmp_path: Path) -> None:
    for number in range(13):
        (tmp_path / f"model-{number:02}").mkdir()
    remedy = unknown("qqq", ModelPolicy(models_dir=str(tmp_path))).remedy
    assert "model-09 and 3 more" in remedy


def test_a_folder_without_models_says_how_to_get_one(tmp_path: Path) -> None:
    assert "nss-train model add smollm2" in unknown("x", ModelPolicy(models_dir=str(tmp_path))).remedy


def test_a_config_s_model_is_missing_unless_a_folder_or_the_store_may_have_it(policy: ModelPolicy) -> None:
    for name, missing in {"TinyLlama": 0, "store:models/x": 0, "other": 1}.items():
        config = parse_config({"training": {"pretrained_model": name}})
        assert len(list(missing_models(config, policy))) == missing
