"""Tokenizers of different kinds, made here: which cuts are valid depends on them."""

from __future__ import annotations

from pathlib import Path

import pytest
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from nss_train.model.tokenizer import ModelTokenizer, load_tokenizer

CORPUS = [
    '{"name":"Ann","size":12.5,"note":"the end of it","year":2013}\n',
    '{"name":"Bob","size":null,"note":"it\'s a long day","year":1999}\n',
    '{"städte":"Köln","x_2":-0.25,"emoji🙂":true}\n',
] * 50
KINDS = ("smollm2", "byte_level", "three_digits", "sentencepiece", "whitespace", "nfc")


@pytest.fixture(params=KINDS)
def tokenizer(request: pytest.FixtureRequest, base_model: Path) -> ModelTokenizer:
    if request.param == "smollm2":
        return load_tokenizer(base_model)
    return ModelTokenizer(backend=_trained(request.param), bos_token="<s>", eos_token="</s>")


def _trained(kind: str) -> Tokenizer:
    """Make a small byte-pair tokenizer of one kind."""
    backend = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=kind == "sentencepiece"))
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    if kind == "sentencepiece":  # as Llama 2: no pre-tokens, a space before every text
        backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
        backend.decoder = decoders.Replace("▁", " ")
        alphabet = [f"<0x{byte:02X}>" for byte in range(256)]
    elif kind == "whitespace":
        backend.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        alphabet = []
    else:
        byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=kind != "three_digits")
        backend.pre_tokenizer = byte_level
        if kind == "three_digits":  # as Llama 3 and Qwen 2
            from tokenizers import Regex

            pattern = r"'s|'t|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s+"
            split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
            backend.pre_tokenizer = pre_tokenizers.Sequence([split, byte_level])
        if kind == "nfc":
            backend.normalizer = normalizers.NFC()
    special = ["<unk>", "<s>", "</s>"] + (alphabet if kind == "sentencepiece" else [])
    trainer = trainers.BpeTrainer(
        vocab_size=900, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    backend.train_from_iterator(CORPUS, trainer)
    return backend
