"""The adapter around a base model: it costs no import that the model does not need."""

from __future__ import annotations

import importlib.abc
import sys
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import pytest
import torch
from peft.tuners.lora import model as lora_model
from transformers import LlamaConfig, LlamaForCausalLM

from nss_train.config import parse_config
from nss_train.model.adapter import put_adapter

BITSANDBYTES = "bitsandbytes"


class Forbidden(importlib.abc.MetaPathFinder):
    """A finder that fails the test when a package is imported."""

    def find_spec(self, name: str, _path: object = None, _target: object = None) -> ModuleSpec | None:
        if name == BITSANDBYTES:
            raise AssertionError(f"{name} is imported")
        return None


def adapted() -> int:
    with torch.device("meta"):
        base = LlamaForCausalLM(
            LlamaConfig(
                hidden_size=16,
                intermediate_size=32,
                num_hidden_layers=1,
                num_attention_heads=2,
                num_key_value_heads=2,
                vocab_size=64,
            )
        )
    trainable, _ = put_adapter(base, parse_config({}).training).get_nb_trainable_parameters()
    return int(trainable)


@pytest.fixture
def not_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """Make this process one that has not imported bitsandbytes, and PEFT one that finds it installed."""
    for name in [name for name in sys.modules if name.partition(".")[0] == BITSANDBYTES]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.delitem(sys.modules, "peft.tuners.lora.bnb", raising=False)
    monkeypatch.setattr(sys, "meta_path", [Forbidden(), *sys.meta_path])
    monkeypatch.setattr(lora_model, "is_bnb_available", lambda: True)


@pytest.mark.usefixtures("not_imported")
def test_a_model_without_quantized_layers_imports_no_bitsandbytes() -> None:
    assert adapted() > 0
    assert lora_model.is_bnb_available()  # asked anew for the next model


def test_where_it_is_imported_peft_looks_for_its_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    asked = list[str]()

    def asking(name: str) -> Callable[[], bool]:
        def ask(*_: Any) -> bool:
            asked.append(name)
            return False

        return ask

    monkeypatch.setitem(sys.modules, BITSANDBYTES, ModuleType(BITSANDBYTES))
    monkeypatch.setattr(lora_model, "is_bnb_available", asking("8 bits"))
    monkeypatch.setattr(lora_model, "is_bnb_4bit_available", asking("4 bits"))
    adapted()
    assert set(asked) == {"8 bits", "4 bits"}
