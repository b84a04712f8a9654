"""Quantized base models, for real, on a CPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from peft import PeftModel
from peft.tuners.lora import LoraLayer
from peft.utils.integrations import dequantize_module_weight

from nss_train.config import parse_config
from nss_train.errors import ParameterError
from nss_train.model.adapter import initial_adapter, load_adapter
from nss_train.model.loading import FLOAT32, load_base
from nss_train.model.quantization import quantization_config
from nss_train.model.scheme import Scheme, choose_scheme

from .conftest import Trained, read

SCHEMES = ["bnb-4bit", "bnb-8bit"]


def training_of(**options: Any) -> Any:
    return parse_config({"training": {"quantize_model": True, "lora_r": 8} | options}).training


def load(folder: Path, scheme: str | None = None) -> Any:
    quantization = None if scheme is None else quantization_config(Scheme(scheme), torch.float32)
    return load_base(folder, FLOAT32, attention="sdpa", trust_remote_code=False, quantization=quantization)


def logits(model: Any) -> torch.Tensor:
    with torch.no_grad():
        found: torch.Tensor = model(torch.arange(5, 60, device=model.device)[None]).logits
    return found


@pytest.mark.parametrize("scheme", SCHEMES)
def test_a_quantized_base_trains_and_its_adapter_loads(scheme: str, train: Trained, tiny_model: Path) -> None:
    options = {"quantize_model": True, "quantization_scheme": scheme, "learning_rate": 0.05, "lora_r": 4}
    folder, _, _ = train(**options, num_input_records_to_sample=240, validation_ratio=0.2)
    history = read(folder / "out" / "log_history.json")
    assert [entry["eval_loss"] for entry in history if "eval_loss" in entry]
    losses = [entry["loss"] for entry in history if "loss" in entry]
    assert losses[-1] < losses[0]
    PeftModel.from_pretrained(load(tiny_model, scheme), folder / "out" / "adapter")


@pytest.mark.parametrize("scheme", SCHEMES)
def test_the_stored_checkpoint_computes_what_quantizing_on_load_does(
    scheme: str,
    train: Trained,
    tiny_model: Path,
) -> None:
    folder, _, _ = train(quantize_model=True, quantization_scheme=scheme)
    stored = load(folder / "in" / "model" / "base")
    assert torch.equal(logits(stored), logits(load(tiny_model, scheme)))


@pytest.mark.parametrize("scheme", SCHEMES)
def test_loftq_begins_nearer_to_the_full_weights(scheme: str, train: Trained, tiny_model: Path) -> None:
    folder, _, _ = train(quantize_model=True, quantization_scheme=scheme, peft_implementation="loftq")
    prepared = folder / "in" / "model"
    model = load_adapter(load(prepared / "base"), prepared / "adapter", trainable=False)
    full = load(tiny_model).state_dict()
    plain, loftq = 0.0, 0.0
    for name, layer in model.get_base_model().named_modules():
        if isinstance(layer, LoraLayer):
            lost = full[f"{name}.weight"] - dequantize_module_weight(layer.base_layer).cpu()
            plain += float(lost.norm())
            loftq += float((lost - layer.get_delta_weight("default").cpu()).norm())
    assert 0 < loftq < 0.95 * plain


def test_without_loftq_the_adapter_of_a_quantized_base_changes_nothing(tiny_model: Path) -> None:
    base = load(tiny_model, "bnb-4bit")
    before = logits(base)
    assert torch.equal(before, logits(initial_adapter(base, training_of(), seed=1)))


@pytest.mark.parametrize(("bits", "expected"), [(4, Scheme.BNB_4BIT), (8, Scheme.BNB_8BIT)])
def test_the_older_number_of_bits_still_chooses(bits: int, expected: Scheme) -> None:
    assert choose_scheme(training_of(quantization_bits=bits)) is expected


@pytest.mark.parametrize("scheme", ["fp8", "nvfp4", "mxfp4"])
def test_a_stored_scheme_that_nothing_can_be_trained_on_is_refused_before_anything_is_loaded(
    scheme: str,
) -> None:
    stored = training_of().model_copy(update={"quantization_scheme": scheme})
    with pytest.raises(ParameterError, match="use bnb-4bit or bnb-8bit") as caught:
        choose_scheme(stored)
    assert caught.value.problems[0].field == "training.quantization_scheme"
