"""The base models that may be used, and what is reported about the others."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from nss_train.contract import ModelPolicy
from nss_train.errors import ParameterError
from nss_train.model.local.source import find_model


def make_model(folder: Path, config: object = None) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({} if config is None else config))
    tokenizer = {"model": {"type": "BPE", "vocab": {}, "merges": []}}
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    (folder / "tokenizer_config.json").write_text("{}")
    (folder / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}")
    return folder


def refusal(name: str, policy: ModelPolicy) -> str:
    with pytest.raises(ParameterError) as caught:
        find_model(name, policy)
    return str(caught.value)


@pytest.fixture
def policy(tmp_path: Path) -> ModelPolicy:
    return ModelPolicy(models_dir=str(tmp_path / "models"))


def test_a_local_folder_is_a_source(tmp_path: Path, policy: ModelPolicy) -> None:
    folder = make_model(tmp_path / "mine")
    assert find_model(str(folder), policy).folder == folder


def test_a_bare_name_is_looked_up_below_the_operators_models(tmp_path: Path, policy: ModelPolicy) -> None:
    folder = make_model(tmp_path / "models" / "small")
    assert find_model("small", policy).folder == folder


def test_a_store_key_uses_what_was_fetched(tmp_path: Path, policy: ModelPolicy) -> None:
    folder = make_model(tmp_path / "fetched")
    assert find_model("store:base/small", policy, fetched=folder).folder == folder


def test_a_store_key_without_files_is_not_looked_up_elsewhere(policy: ModelPolicy) -> None:
    assert "the store has no files" in refusal("store:base/small", policy)


def test_an_empty_name_is_not_the_current_folder(policy: ModelPolicy) -> None:
    assert "not found" in refusal("", policy)


def test_the_hub_is_off_unless_the_operator_allows_it(policy: ModelPolicy) -> None:
    assert "NSS_TRAIN_ALLOW_HUB" in refusal("owner/model", policy)


def test_a_malformed_hub_id_is_a_parameter_error(policy: ModelPolicy) -> None:
    assert "OWNER/NAME" in refusal("a/b/c/d", policy.model_copy(update={"allow_hub": True}))


@pytest.mark.parametrize("pickle", ["pytorch_model.bin", "training_args.bin", "original/consolidated.pth"])
def test_a_pickle_beside_safetensors_is_refused_by_name(
    tmp_path: Path, policy: ModelPolicy, pickle: str
) -> None:
    folder = make_model(tmp_path / "mine")
    (folder / pickle).parent.mkdir(exist_ok=True)
    (folder / pickle).write_bytes(b"")
    assert pickle in refusal(str(folder), policy)


def test_all_problems_are_told_at_once(tmp_path: Path, policy: ModelPolicy) -> None:
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "model.ckpt").write_bytes(b"")
    text = refusal(str(tmp_path / "empty"), policy)
    for part in (
        "config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.ckpt",
        "no .safetensors file",
    ):
        assert part in text


@pytest.mark.parametrize("config", ["{", "[]"])
def test_a_config_that_is_no_object_is_told(tmp_path: Path, policy: ModelPolicy, config: str) -> None:
    folder = make_model(tmp_path / "mine")
    (folder / "config.json").write_text(config)
    assert "config.json is not a JSON object" in refusal(str(folder), policy)


def test_a_missing_shard_is_named(tmp_path: Path, policy: ModelPolicy) -> None:
    folder = make_model(tmp_path / "mine")
    index = {"weight_map": {"a": "model-1.safetensors", "b": "model.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert "missing: model-1.safetensors" in refusal(str(folder), policy)


def test_a_models_own_code_needs_the_operators_word(tmp_path: Path, policy: ModelPolicy) -> None:
    folder = make_model(tmp_path / "mine", {"auto_map": {"AutoModelForCausalLM": "code.Model"}})
    assert "NSS_TRAIN_TRUST_REMOTE_CODE" in refusal(str(folder), policy)
    trusting = policy.model_copy(update={"trust_remote_code": (str(folder),)})
    assert find_model(str(folder), trusting).trust_remote_code


def test_finding_a_model_imports_neither_torch_nor_transformers() -> None:
    code = "import sys, nss_train.model.local.source; assert not {'torch', 'transformers'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
