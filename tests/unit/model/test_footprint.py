"""The memory that a training is estimated to need."""

from __future__ import annotations

from typing import Any

import pytest

from nss_train.config import parse_config
from nss_train.config.sections.training import TrainingHyperparams
from nss_train.model.footprint import Shape, training_bytes
from nss_train.model.scheme import Scheme

LLAMA_3_8B = {
    "hidden_size": 4096,
    "num_hidden_layers": 32,
    "vocab_size": 128256,
    "intermediate_size": 14336,
    "num_attention_heads": 32,
    "num_key_value_heads": 8,
    "tie_word_embeddings": False,
}
SMOLLM2_135M = {
    "hidden_size": 576,
    "num_hidden_layers": 30,
    "vocab_size": 49152,
    "intermediate_size": 1536,
    "num_attention_heads": 9,
    "num_key_value_heads": 3,
    "tie_word_embeddings": True,
}


def training(**options: Any) -> TrainingHyperparams:
    return parse_config({"training": options}).training


@pytest.mark.parametrize(("config", "billions"), [(LLAMA_3_8B, 8.03), (SMOLLM2_135M, 0.1345)])
def test_the_numbers_of_a_config_give_the_published_count_of_parameters(
    config: dict[str, Any], billions: float
) -> None:
    shape = Shape.of(config)
    assert shape is not None
    assert shape.embedding_parameters + shape.layer_parameters == pytest.approx(billions * 1e9, rel=0.01)


def gib(config: dict[str, Any], *, tokens: int = 2048, scheme: Scheme | None = None, **options: Any) -> float:
    found = training_bytes(config, training(**options), tokens=tokens, scheme=scheme)
    assert found is not None
    return found / 2**30


def test_eight_billion_parameters_need_more_than_24_gib_unless_they_are_quantized() -> None:
    assert 24 < gib(LLAMA_3_8B) < 40
    assert gib(LLAMA_3_8B, scheme=Scheme.BNB_8BIT) < gib(LLAMA_3_8B)
    assert 8 < gib(LLAMA_3_8B, scheme=Scheme.BNB_4BIT) < 24


def test_more_tokens_and_larger_batches_need_more() -> None:
    usual = gib(SMOLLM2_135M)
    assert gib(SMOLLM2_135M, tokens=4096) > usual
    assert gib(SMOLLM2_135M, batch_size=2) == pytest.approx(gib(SMOLLM2_135M, tokens=4096))
    assert gib(SMOLLM2_135M, lora_r=64) > usual


def test_the_text_part_of_a_model_of_several_parts_counts() -> None:
    assert Shape.of({"text_config": LLAMA_3_8B, "hidden_size": 1}) == Shape.of(LLAMA_3_8B)


def test_of_an_architecture_with_other_names_nothing_is_known() -> None:
    config = {"d_model": 512, "vocab_size": 100}
    assert training_bytes(config, training(), tokens=100, scheme=None) is None
