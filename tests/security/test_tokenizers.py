"""A tokenizer that would not end, or grow without bound, is refused; those of known families are not."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import pytest

from nss_train.contract import ModelPolicy
from nss_train.model.bounds.patterns import is_known
from nss_train.model.local.source import find_model
from tests.security.models import BYTES, LLAMA_3, TOKENIZER, UNKNOWN, bpe, replace, split
from tests.unit.model.test_source import refusal


def charsmap(longest: str) -> dict[str, Any]:
    data = (4).to_bytes(4, "little") + bytes(4) + longest.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def nested(depth: int) -> dict[str, Any]:
    return {"type": "NFC"} if depth == 0 else sequence(nested(depth - 1))["normalizer"]


GROWS = "one character may become more than 100"


TOKENIZERS: list[tuple[dict[str, Any], str]] = [
    (sequence(*[replace("a", "a" * 30)] * 6), "at most 16 characters"),
    (sequence(*[replace("a", "aaaa")] * 6), GROWS),
    (sequence(*[{"type": "ByteLevel"}] * 4), GROWS),
    (sequence({"type": "NFKC"}, {"type": "NFKD"}), GROWS),
    (sequence(charsmap("x" * 200)), GROWS),
    (sequence({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "character map cannot be read"),
    (sequence({"type": "Prepend", "prepend": "x" * 10_000}), "at most 16 characters"),
    (sequence(*[{"type": "NFC"}] * 1_000), "16 are allowed"),
    (sequence(replace("", "x")), "pattern is empty"),
    (sequence(replace("(a+)+$", "x", "Regex")), UNKNOWN),
    (sequence({"type": "Evil"}), "kind 'Evil'"),
    ({"normalizer": nested(40)}, "sequences in sequences"),
    ({"normalizer": ["NFC"]}, "not made of steps"),
    ({"pre_tokenizer": split("(a+)+$")}, UNKNOWN),
    ({"pre_tokenizer": split(f"{LLAMA_3}|(x|x)*y")}, UNKNOWN),
    ({"pre_tokenizer": split(r"\s*[\r\n]+")}, UNKNOWN),
    ({"pre_tokenizer": {"type": "Sequence", "pretokenizers": [BYTES] * 5}}, GROWS),
    ({"decoder": replace("(a+)+$", "x", "Regex")}, UNKNOWN),
    ({"post_processor": {"type": "TemplateProcessing", "single": ["x" * 9] * 9_000}}, "its steps take"),
    ({"padding": {"strategy": {"Fixed": 10**9}}}, "padding must be a number"),
    ({"padding": {"strategy": "BatchLongest", "pad_to_multiple_of": 10**9}}, "pad_to_multiple_of must"),
    (bpe(dropout=0.5), "dropout would cut"),
    (bpe(continuing_subword_prefix="x" * 10**5), "continuing_subword_prefix must"),
    (bpe(vocab={"a": 10**9}), "ids must be numbers"),
    (bpe(vocab={"a": 301}), "beyond the 300 of config.json"),
    (bpe(vocab={"a" * 2_000: 0}), "a token has more than"),
    (bpe(type="WordPiece", max_input_chars_per_word=10**9), "max_input_chars_per_word must"),
    (bpe(type="Evil"), "its model must be one of"),
    ({"model": None}, "it has no model"),
    ({"added_tokens": [{"id": 1, "content": ""}]}, "each added token has"),
    ({"added_tokens": [{"id": 1, "content": "x"}] * 70_000}, "at most 65,536"),
]


@pytest.mark.parametrize(("change", "said"), TOKENIZERS)
def test_a_tokenizer_that_would_not_end_is_refused(
    change: dict[str, Any], said: str, model: Path, strict: ModelPolicy
) -> None:
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | change))
    assert said in refusal("m", strict)


BEFORE = r"[^\r\n\p{L}\p{N}]?"


UPPER, LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"


FAMILIES = {
    "GPT-2, Granite": r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+",
    "Llama 3, SmolLM3": LLAMA_3,
    "Qwen 2, Qwen 3": LLAMA_3.replace("{1,3}", ""),
    "Qwen 3.5": LLAMA_3.replace("{1,3}", "")
    .replace(r"\p{L}+|\p{N}", r"[\p{L}\p{M}]+|\p{N}")
    .replace(r"[^\s\p{L}\p{N}]", r"[^\s\p{L}\p{M}\p{N}]"),
    "Mistral Nemo, Nemotron Nano": rf"{BEFORE}{UPPER}*{LOWER}+|{BEFORE}{UPPER}+{LOWER}*|\p{{N}}"
    r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@pytest.mark.parametrize("family", FAMILIES)
def test_the_pattern_of_a_family_is_known(family: str) -> None:
    assert is_known(FAMILIES[family])


SENTENCEPIECE = sequence({"type": "Prepend", "prepend": "▁"}, replace(" ", "▁")) | {"pre_tokenizer": None}


METASPACE = {"type": "Metaspace", "replacement": "▁", "prepend_scheme": "first", "split": False}


SPACES = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}


DECODERS = [replace("▁", " "), {"type": "ByteFallback"}, {"type": "Fuse"}, {"type": "Strip", "content": " "}]


HONEST = {
    "Llama 2, TinyLlama, Phi 3": SENTENCEPIECE | {"decoder": {"type": "Sequence", "decoders": DECODERS}},
    "Mistral": {"normalizer": None, "pre_tokenizer": METASPACE},
    "Gemma": {"normalizer": replace(" ", "▁"), "pre_tokenizer": SPACES},
    "Nemotron of SentencePiece": sequence(charsmap("صلى الله عليه وسلم"), replace(" {2,}", "▁", "Regex")),
    "SmolLM2": {
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": [{"type": "Digits"}, BYTES]},
    },
}


@pytest.mark.parametrize("family", HONEST)
def test_the_tokenizers_of_the_families_pass(family: str, model: Path, strict: ModelPolicy) -> None:
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | HONEST[family]))
    assert find_model("m", strict).folder == model
