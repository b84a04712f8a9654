"""A tokenizer that would not end, or grow without bound, is refused; those of known families are not."""

from __future__ import annotations

import base64
import json
import struct
from collections.abc import Sequence
from dataclasses import replace as replaced
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from tokenizers.normalizers import Precompiled

from nss_train.contract import ModelPolicy
from nss_train.data.tokenization.distinct_values import Column
from nss_train.data.tokenization.fragments import tokenize_privately
from nss_train.errors import ParameterError
from nss_train.model.bounds.patterns import is_known
from nss_train.model.bounds.trie import check_trie
from nss_train.model.local.source import find_model
from nss_train.model.tokenizer import load_tokenizer
from tests.security.models import BYTES, LLAMA_3, TOKENIZER, UNKNOWN, bpe, replace, split
from tests.unit.model.test_source import refusal


def charsmap(longest: str, trie: Sequence[int] = [0] * 256) -> dict[str, Any]:
    units = struct.pack(f"<{len(trie)}I", *trie)
    data = len(units).to_bytes(4, "little") + units + longest.encode() + b"\0"
    return {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(data).decode()}


def leaf(value: int) -> list[int]:
    """Return a trie of the one character ``a``, which becomes the text at ``value``."""
    trie = [0] * 512
    trie[ord("a")] = (256 ^ ord("a")) << 10 | 1 << 8 | ord("a")
    trie[256] = value
    return trie


def sequence(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"normalizer": {"type": "Sequence", "normalizers": list(steps)}}


def nested(depth: int) -> dict[str, Any]:
    return {"type": "NFC"} if depth == 0 else sequence(nested(depth - 1))["normalizer"]


UNREAD = "character map cannot be read"
GROWS = "one character may become more than 100"


TOKENIZERS: list[tuple[dict[str, Any], str]] = [
    (sequence(*[replace("a", "a" * 30)] * 6), "at most 16 characters"),
    (sequence(*[replace("a", "aaaa")] * 6), GROWS),
    (sequence(*[{"type": "ByteLevel"}] * 4), GROWS),
    (sequence({"type": "NFKC"}, {"type": "NFKD"}), GROWS),
    (sequence(charsmap("x" * 200)), GROWS),
    (sequence({"type": "Precompiled", "precompiled_charsmap": "AAAA"}), "character map cannot be read"),
    (sequence(charsmap("x", [])), UNREAD),
    (sequence(charsmap("x", [0] * 255)), UNREAD),
    (sequence(charsmap("x", [2**32 - 1] * 256)), UNREAD),
    (sequence(charsmap("x", leaf(value=0)[:256])), UNREAD),
    (sequence(charsmap("x", leaf(value=5))), UNREAD),
    (sequence(charsmap("éx", leaf(value=1))), UNREAD),
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
    (bpe(vocab={f"{i:01000}": i for i in range(5_000)}), "its tokens have more than 4,194,304"),
    (bpe(type="Unigram", vocab=[["a" * 1_000, 0.0]] * 5_000), "its tokens have more than 4,194,304"),
    (bpe(merges=[["a" * 1_000, "b"]] * 9_000), "its merges have more than 8,388,608"),
    (bpe(merges=["a" * 1_000 + " b"] * 9_000), "its merges have more than 8,388,608"),
    ({"added_tokens": [{"id": 1, "content": "x" * 1_000}] * 2_000}, "added_tokens have more than 1,048,576"),
    (bpe(vocab={"a" * 2_000: 0}), "a token has more than"),
    (bpe(type="Unigram", vocab=[["a" * 129, 0.0]]), "a token has more than 128"),
    (bpe(type="WordPiece", max_input_chars_per_word=101), "max_input_chars_per_word must"),
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


def test_a_character_map_that_leads_to_its_own_texts_passes(model: Path, strict: ModelPolicy) -> None:
    change = sequence(charsmap("yy", leaf(value=0)))
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | change))
    assert find_model("m", strict).folder == model
    check_trie(struct.pack("<512I", *leaf(value=0)), b"yy\0")
    charted = charsmap("yy", leaf(value=0))["precompiled_charsmap"]
    assert Precompiled(base64.b64decode(charted)).normalize_str("ab") == "yyb"


def test_a_model_without_pre_tokens_that_drops_characters_is_told(model: Path) -> None:
    change = bpe(vocab={"a": 0, "aa": 1}, merges=[["a", "a"]]) | {"pre_tokenizer": None, "normalizer": None}
    change |= {"added_tokens": [], "post_processor": None, "decoder": None}
    (model / "tokenizer.json").write_text(json.dumps(TOKENIZER | change))
    column = Column(
        name="note",
        label='"note"',
        kind=pa.string(),
        codes=np.zeros(1, np.int32),
        values=["a"],
        texts=['"a"'],
    )
    with pytest.raises(ParameterError, match="tokenizer.json .pre_tokenizer, model. gives texts other ids"):
        tokenize_privately([column, replaced(column, label='"other"')], load_tokenizer(model))
