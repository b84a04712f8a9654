"""The result of a quantized base for one unit does not depend on the others in its micro-batch."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel

from nss_train.errors import ParameterError
from nss_train.model.loading import FLOAT32, check_layers, choose_attention, load_base, load_skeleton
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import Scheme

EIGHT_BITS = quantization_config(Scheme.BNB_8BIT, torch.float32)
LONG_ROPE = {
    "rope_type": "longrope",
    "rope_theta": 1e4,
    "factor": 4.0,
    "original_max_position_embeddings": 2048,
    "short_factor": [1.0] * 8,
    "long_factor": [4.0] * 8,
}
OUTLIER = 50.0
"""Value beyond LLM.int8's threshold of 6: it takes the whole column out of the 8 bits, for all rows."""


def load(folder: Path, **options: Any) -> PreTrainedModel:
    return load_base(folder, FLOAT32, attention="sdpa", trust_remote_code=False, **options)


def load_skeleton_of(folder: Path, **options: Any) -> PreTrainedModel:
    return load_skeleton(folder, attention="sdpa", trust_remote_code=False, **options)


@pytest.fixture(scope="module")
def stored(tmp_path_factory: pytest.TempPathFactory, tiny_model: Path) -> Path:
    """Save a model as load_model leaves it, for private and other jobs alike."""
    folder = tmp_path_factory.mktemp("stored")
    load(tiny_model, quantization=EIGHT_BITS).save_pretrained(folder)
    return folder


def layers(model: PreTrainedModel) -> list[Any]:
    """Return the layers in 8 bits, as they compute on a CUDA device; in training a CPU takes another way."""
    found = [module.eval() for module in model.modules() if type(module).__name__ == "Linear8bitLt"]
    for layer in found:
        layer.state.is_training = False
    return found


def moved_by_a_neighbour(layer: Any) -> float:
    """Return how far a row's output is from what it is alone, when another row has an outlier."""
    rows = torch.randn(2, layer.in_features, generator=torch.Generator().manual_seed(1))
    rows[1, 3] = OUTLIER
    rows = rows.to(layer.weight.device)
    with torch.no_grad():
        return float((layer(rows)[0] - layer(rows[:1])[0]).abs().max())


def test_by_default_an_outlier_changes_the_other_rows(stored: Path, tiny_model: Path) -> None:
    for model in (load(stored), load(tiny_model, quantization=EIGHT_BITS)):
        assert any(moved_by_a_neighbour(layer) > 0 for layer in layers(model))


def test_rows_are_independent_where_they_have_to_be(stored: Path, tiny_model: Path) -> None:
    for model in (
        load(stored, rows_independent=True),
        load(tiny_model, quantization=EIGHT_BITS, rows_independent=True),
    ):
        found = layers(model)
        assert found
        assert {layer.state.threshold for layer in found} == {0.0}
        assert max(moved_by_a_neighbour(layer) for layer in found) == 0
    # The caller's own is left as it was.
    assert EIGHT_BITS.llm_int8_threshold == 6.0


def test_the_threshold_alone_is_another(stored: Path) -> None:
    configs = [load(stored, rows_independent=asked).config.quantization_config for asked in (False, True)]
    usual, independent = (config.to_dict() for config in configs)
    assert usual | {"llm_int8_threshold": 0.0} == independent


@pytest.mark.parametrize(
    ("update", "why"),
    [
        ({"rope_parameters": LONG_ROPE}, "rotary frequencies follow the longest row"),
        ({"quantization_config": {"quant_method": "compressed-tensors"}}, "scale a row by others"),
        ({"expert_capacity": 64}, "experts take so many tokens of a batch"),
    ],
)
def test_a_base_whose_rows_depend_on_each_other_is_refused(
    update: dict[str, Any], why: str, tiny_model: Path, tmp_path: Path
) -> None:
    config = json.loads((tiny_model / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | update))
    for read in (load, load_skeleton_of):
        with pytest.raises(ParameterError, match=why) as caught:
            read(tmp_path, rows_independent=True)
        assert caught.value.message == "The base model cannot be trained privately."


def test_a_base_in_full_precision_is_loaded_as_ever(tiny_model: Path) -> None:
    assert getattr(load(tiny_model, rows_independent=True).config, "quantization_config", None) is None


def test_a_layer_that_normalises_a_row_by_others_is_refused() -> None:
    model = torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.BatchNorm1d(4))
    with pytest.raises(ParameterError, match="its 1 normalises a row by others"):
        check_layers(model, "small")
    check_layers(torch.nn.Sequential(torch.nn.Linear(4, 4), torch.nn.LayerNorm(4)), "small")


@pytest.mark.parametrize("wanted", ["flash_attention_2", "kernels-community/vllm-flash-attn3"])
def test_attention_that_packs_rows_into_one_is_refused(wanted: str) -> None:
    with pytest.raises(ParameterError, match="training.attn_implementation"):
        choose_attention(wanted, rows_independent=True)
    assert choose_attention("eager", rows_independent=True) == "eager"


def test_an_adapter_on_experts_is_refused() -> None:
    model = torch.nn.ModuleDict(
        {"experts": torch.nn.ModuleList([torch.nn.ModuleDict({"lora_A": torch.nn.Linear(2, 2)})])}
    )
    with pytest.raises(ParameterError, match="see tokens and not rows"):
        check_layers(model, "small")
