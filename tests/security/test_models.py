"""A base model runs no code and leads to no other folder."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from nss_train.contract import ModelPolicy
from nss_train.errors import ParameterError
from nss_train.model.source import INDEX, PICKLES, find_model
from tasks.inputs import _fetch_source
from tasks.job import RESERVED
from tasks.store.local import LocalStore
from tests.unit.model.test_source import make_model, refusal


@pytest.fixture
def strict(tmp_path: Path) -> ModelPolicy:
    """An operator who lets jobs name models of the models folder alone."""
    return ModelPolicy(models_dir=str(tmp_path / "models"), allow_paths=False)


@pytest.mark.parametrize("suffix", PICKLES)
def test_a_pickle_anywhere_in_the_folder_is_refused(suffix: str, tmp_path: Path, strict: ModelPolicy) -> None:
    folder = make_model(tmp_path / "models" / "m")
    (folder / "sub").mkdir()
    (folder / "sub" / f"weights{suffix}").write_bytes(b"\x80\x04.")
    assert f"sub/weights{suffix}" in refusal("m", strict)


def test_a_model_s_own_code_needs_the_operator_s_word(tmp_path: Path, strict: ModelPolicy) -> None:
    make_model(tmp_path / "models" / "m", {"auto_map": {"AutoModelForCausalLM": "evil.Model"}})
    assert "the operator must list it" in refusal("m", strict)
    trusting = strict.model_copy(update={"trust_remote_code": ("m",)})
    assert find_model("m", trusting).trust_remote_code
    assert "the operator must list it" in refusal("./m", trusting)


def test_a_path_of_the_worker_is_refused_where_strangers_submit(tmp_path: Path, strict: ModelPolicy) -> None:
    outside = make_model(tmp_path / "outside")
    make_model(tmp_path / "models" / "m")
    assert find_model("m", strict).folder == tmp_path / "models" / "m"
    for name in (str(outside), "../outside", "m/../../outside"):
        assert "not found" in refusal(name, strict)


WEIGHTS = [["x"], "x", {"a": "../../outside.safetensors"}, {"a": "/etc/passwd"}, {"a": 1}]


@pytest.mark.parametrize("weights", WEIGHTS)
def test_an_index_names_files_of_its_own_folder(weights: object, tmp_path: Path, strict: ModelPolicy) -> None:
    folder = make_model(tmp_path / "models" / "m")
    (folder / INDEX).write_text(json.dumps({"weight_map": weights}))
    assert "no file of the folder" in refusal("m", strict)


TAKEN = ["store:jobs", *(f"store:{one}/x" for one in RESERVED), "store:/jobs/x/", "store:../x"]


@pytest.mark.parametrize("name", TAKEN)
def test_the_files_of_jobs_are_no_models(name: str, tmp_path: Path) -> None:
    store = LocalStore(tmp_path / "store")
    for folder in RESERVED:
        store.write(f"{folder}/x/config.json", b"{}")
    with pytest.raises(ParameterError):
        _fetch_source(name, tmp_path / "in", store=store)
    assert not (tmp_path / "in").exists()
