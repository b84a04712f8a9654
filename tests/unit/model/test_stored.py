"""A model whose weights are not in its files is refused before its layers take memory."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModelForCausalLM, GPT2Config, MixtralConfig, PretrainedConfig

from nss_train.errors import ParameterError
from nss_train.model.loading import FLOAT32, load_base, load_skeleton
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import Scheme
from nss_train.model.stored import Stored, check_resolved, check_stored

pytestmark = pytest.mark.heavy

Tensors = dict[str, torch.Tensor]


def check(folder: Path) -> None:
    stored = Stored.of(folder)
    check_resolved(stored)
    check_stored(stored, load_skeleton(folder, attention="sdpa", trust_remote_code=False))


def refusal(folder: Path) -> str:
    with pytest.raises(ParameterError) as caught:
        check(folder)
    return str(caught.value)


@pytest.fixture
def model(tiny_model: Path, tmp_path: Path) -> Path:
    return shutil.copytree(tiny_model, tmp_path / "m")


def test_a_model_that_its_files_hold_passes(model: Path) -> None:
    check(model)


CONFIGS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "mixtral": {"model_type": "mixtral"},
    "deepseek_v3": {"model_type": "deepseek_v3"},
    "jamba": {"model_type": "jamba"},
    "llama of one layer": {"model_type": "llama", "num_hidden_layers": 1},
}


@pytest.mark.parametrize("name", CONFIGS)
def test_sizes_that_a_config_leaves_out_are_those_of_its_class(name: str, model: Path) -> None:
    (model / "config.json").write_text(json.dumps(CONFIGS[name]))
    assert "config.json means" in refusal(model)


def test_layers_that_a_config_leaves_out_are_not_built(model: Path) -> None:
    (model / "config.json").write_text(json.dumps({"model_type": "llama"}))
    save_file({"x": torch.zeros(1)}, model / "model.safetensors")
    with pytest.raises(ParameterError, match="means 32 layers; the weights have 1 tensors"):
        check_resolved(Stored.of(model))


@pytest.mark.filterwarnings("ignore:.torch.jit.script. is deprecated")
def test_masks_that_no_file_holds_have_a_bound(model: Path) -> None:
    config = {"model_type": "gpt_bigcode", "n_positions": 100_000, "n_embd": 64, "n_layer": 2, "n_head": 4}
    (model / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    assert "bytes of masks and tables" in refusal(model)


def _without(tensors: Tensors) -> Tensors:
    return {name: one for name, one in tensors.items() if "layers.0.mlp.up_proj" not in name}


def _shorter(tensors: Tensors) -> Tensors:
    return {name: one[:1].clone() if "up_proj" in name else one for name, one in tensors.items()}


CHANGES: dict[str, Callable[[Tensors], Tensors]] = {
    "lack 1 parameters of the model: model.layers.0.mlp.up_proj.weight": _without,
    "parameters of another size than config.json: model.layers.0.mlp.up_proj": _shorter,
}


@pytest.mark.parametrize("said", CHANGES)
def test_weights_that_lack_a_part_of_the_model_are_refused(said: str, model: Path) -> None:
    path = model / "model.safetensors"
    save_file(CHANGES[said](load_file(path)), path)
    assert said in refusal(model)


SMALL = {"vocab_size": 300, "hidden_size": 32, "num_attention_heads": 2, "num_hidden_layers": 2}
OTHERS = [
    GPT2Config(vocab_size=300, n_embd=32, n_layer=2, n_head=2),
    MixtralConfig(**SMALL, intermediate_size=32, num_key_value_heads=2, num_local_experts=4),
]


@pytest.mark.parametrize("config", OTHERS, ids=lambda config: str(config.model_type))
def test_names_that_transformers_changes_while_loading_are_found(
    config: PretrainedConfig, tmp_path: Path
) -> None:
    AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path, max_shard_size="50KB")
    assert len(list(tmp_path.glob("*.safetensors"))) > 1
    check(tmp_path)


@pytest.mark.parametrize("scheme", [Scheme.BNB_4BIT, Scheme.BNB_8BIT])
def test_a_quantized_model_is_stored_packed(scheme: Scheme, model: Path, tmp_path: Path) -> None:
    quantization = quantization_config(scheme, FLOAT32.dtype)
    base = load_base(
        model, FLOAT32, attention="sdpa", trust_remote_code=False, quantization=quantization, placement=None
    )
    base.save_pretrained(tmp_path / "stored")
    check(tmp_path / "stored")
    path = tmp_path / "stored" / "model.safetensors"
    save_file({k: v for k, v in load_file(path).items() if "up_proj" not in k}, path)
    assert "lack" in refusal(tmp_path / "stored")
