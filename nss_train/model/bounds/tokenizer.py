"""Bounds on a model's ``tokenizer.json``, checked before it reads any text."""

from __future__ import annotations

import base64
import binascii
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from nss_train.model.bounds import patterns
from nss_train.model.bounds.trie import check_trie

NORMALIZERS = (
    "NFC NFD NFKC NFKD Lowercase Strip StripAccents Nmt Prepend Replace Precompiled BertNormalizer ByteLevel"
)
PRE_TOKENIZERS = (
    "ByteLevel Metaspace Split Digits Punctuation Whitespace WhitespaceSplit BertPreTokenizer "
    "CharDelimiterSplit UnicodeScripts"
)
POST_PROCESSORS = "ByteLevel TemplateProcessing BertProcessing RobertaProcessing"
DECODERS = "ByteLevel Replace Strip Fuse ByteFallback Metaspace WordPiece BPEDecoder"
MODELS = ("BPE", "Unigram", "WordLevel", "WordPiece")
_PARTS = {
    "normalizer": ("normalizers", NORMALIZERS),
    "pre_tokenizer": ("pretokenizers", PRE_TOKENIZERS),
    "post_processor": ("processors", POST_PROCESSORS),
    "decoder": ("decoders", DECODERS),
}
"""Each part with the name of its list in a sequence, and its allowed kinds."""
MOST_STEPS, MOST_DEPTH = 16, 4
MOST_GROWTH = 100
"""Most characters that one character may become: NFKC makes 18 of one, and bytes 4 of each."""
_GROWTH = {"NFC": 3, "NFD": 4, "NFKC": 18, "NFKD": 18, "Lowercase": 3, "ByteLevel": 4, "BertNormalizer": 4}
"""Expansion factors of the Unicode normalization FAQ (unicode.org/faq/normalization.html), rounded up."""
MOST_TOKENS, MOST_MERGES, MOST_ADDED = 2**20, 2**21, 2**16
MOST_ID = 2**21
TOKEN_CHARS = 1_024
WORD_CHARS = 100
"""Most characters of a word that WordPiece cuts, BERT's number; the time grows with its cube."""
UNIGRAM_CHARS = 128
"""Most characters of a Unigram's token. SentencePiece makes 16 unless asked; each place of a text is compared
with all tokens that begin there."""
VOCABULARY_CHARS, MERGES_CHARS, ADDED_CHARS = 2**22, 2**23, 2**20
"""Most characters of all tokens, of all merges and of all added tokens. A reader keeps a token more than
once; a Unigram's trie takes 150 bytes for each character, so that 45,000 tokens of 1,000 took 6.6 GB. Gemma
3, the largest vocabulary of the known families, may have 16 characters in each of its 262,144 tokens. Merges
say tokens again, in two parts; Gemma 3's 6,000 added tokens are short."""
AFFIX_CHARS = 16
STEP_CHARS = 2**16
"""Most characters of all steps, character maps excluded."""
CHARSMAP_CHARS = 2**20
_PADDING_TOKENS = 2**17
_CHARSMAP = re.compile(r'"precompiled_charsmap": "[^"]*"')


def tokenizer_faults(document: Mapping[str, object], *, vocabulary: int | None) -> list[str]:
    """Return every reason to refuse a tokenizer; ``vocabulary`` is the size in ``config.json``."""
    found = [fault for part in _PARTS for fault in _part_faults(part, document.get(part))]
    model = document.get("model")
    if not isinstance(model, Mapping):
        found.append("it has no model")
    else:
        found += _model_faults(model, vocabulary)
    found += [*_added_faults(document.get("added_tokens") or []), *_length_faults(document)]
    if not found and _growth_of(document) > MOST_GROWTH:
        found.append(f"one character may become more than {MOST_GROWTH} (normalizer, pre_tokenizer)")
    if _said_chars(document) > STEP_CHARS:
        found.append(f"its steps take more than {STEP_CHARS:,} characters")
    return [f"tokenizer.json: {fault}" for fault in found]


def added_beside_faults(documents: Mapping[str, Mapping[str, object]]) -> Iterator[str]:
    """Yield why the tokens that other documents add to a tokenizer are refused."""
    decoder = documents.get("tokenizer_config.json", {}).get("added_tokens_decoder")
    listed = list(decoder.values()) if isinstance(decoder, Mapping) else []
    texts = [str(one.get("content")) if isinstance(one, Mapping) else str(one) for one in listed]
    found = {
        "tokenizer_config.json: added_tokens_decoder": texts,
        "added_tokens.json: it": list(documents.get("added_tokens.json", {})),
    }
    for name, added in found.items():
        if len(added) > MOST_ADDED or sum(map(len, added)) > ADDED_CHARS:
            yield f"{name} adds more than {MOST_ADDED:,} tokens, or {ADDED_CHARS:,} characters"


def _part_faults(part: str, given: object) -> Iterator[str]:
    if given is None:
        return
    inner, kinds = _PARTS[part]
    try:
        steps = list(_steps(given, inner, 0))
    except ValueError as error:
        yield f"{part} {error}"
        return
    if len(steps) > MOST_STEPS:
        yield f"{part} has {len(steps)} steps; {MOST_STEPS} are allowed"
    for step in steps[:MOST_STEPS]:
        kind = step.get("type")
        if kind not in kinds.split():
            yield f"{part} has a step of the kind {str(kind)[:40]!r}; known are {', '.join(kinds.split())}"
        elif kind in _CHECKS:
            yield from (f"{part} {kind}: {fault}" for fault in _CHECKS[kind](step))


def _steps(given: object, inner: str, depth: int) -> Iterator[Mapping[str, Any]]:
    """Yield the steps of a part, with sequences flattened."""
    if not isinstance(given, Mapping) or depth > MOST_DEPTH:
        raise ValueError("is not made of steps, or of sequences in sequences")
    if given.get("type") != "Sequence":
        yield given
        return
    if not isinstance(given.get(inner), list):
        raise ValueError(f"has a sequence without {inner}")  # noqa: TRY004 (reported as a fault)
    for one in given[inner]:
        yield from _steps(one, inner, depth + 1)


def _replace_faults(step: Mapping[str, Any]) -> Iterator[str]:
    kind, pattern = _pattern(step)
    if kind == "Regex" and pattern not in patterns.REPLACING:
        yield f"the pattern {pattern[:60]!r} is none of a known family's"
    elif not pattern:
        yield "its pattern is empty, or none"
    if not isinstance(step.get("content"), str) or len(step["content"]) > AFFIX_CHARS:
        yield f"content must be a text of at most {AFFIX_CHARS} characters"


def _split_faults(step: Mapping[str, object]) -> Iterator[str]:
    kind, pattern = _pattern(step)
    if kind == "Regex" and not patterns.is_known(pattern):
        yield f"the pattern {pattern[:60]!r} is none of a known family's"
    elif not pattern or len(pattern) > patterns.MOST_CHARS:
        yield "its pattern is empty, too long, or none"


def _pattern(step: Mapping[str, object]) -> tuple[str, str]:
    given = step.get("pattern")
    if isinstance(given, Mapping) and len(given) == 1:
        ((kind, pattern),) = given.items()
        if kind in ("Regex", "String") and isinstance(pattern, str):
            return kind, pattern
    return "", ""


def _prepend_faults(step: Mapping[str, Any]) -> Iterator[str]:
    if not isinstance(step.get("prepend"), str) or len(step["prepend"]) > AFFIX_CHARS:
        yield f"prepend must be a text of at most {AFFIX_CHARS} characters"


def _charsmap_faults(step: Mapping[str, object]) -> Iterator[str]:
    try:
        _charsmap_growth(step)
    except (ValueError, binascii.Error):
        yield "its character map cannot be read"


def _charsmap_growth(step: Mapping[str, object]) -> int:
    """Return the longest replacement in SentencePiece's character map: a size, a trie of that size, texts."""
    encoded = step.get("precompiled_charsmap")
    if not isinstance(encoded, str) or len(encoded) > CHARSMAP_CHARS:
        raise ValueError("no character map, or a large one")
    data = base64.b64decode(encoded, validate=True)
    behind = 4 + int.from_bytes(data[:4], "little")
    if behind > len(data):
        raise ValueError("cut short")
    check_trie(data[4:behind], data[behind:])
    return max((len(text.decode("utf-8")) for text in data[behind:].split(b"\0")), default=1) or 1


_CHECKS: dict[str, Callable[[Mapping[str, Any]], Iterator[str]]] = {
    "Replace": _replace_faults,
    "Split": _split_faults,
    "Prepend": _prepend_faults,
    "Precompiled": _charsmap_faults,
}


def _growth_of(document: Mapping[str, object]) -> float:
    """Return the most characters that one may become, in a document without other faults."""
    found = 1.0
    for part in ("normalizer", "pre_tokenizer"):
        given = document.get(part)
        for step in [] if given is None else _steps(given, _PARTS[part][0], 0):
            found *= _growth(step)
    return found


def _growth(step: Mapping[str, Any]) -> float:
    kind = step["type"]
    if kind == "Replace":
        how, pattern = _pattern(step)
        return max(1.0, len(step["content"]) / (1 if how == "Regex" else len(pattern)))
    if kind == "Precompiled":
        return _charsmap_growth(step)
    return _GROWTH.get(kind, 1)


def _model_faults(model: Mapping[str, Any], vocabulary: int | None) -> Iterator[str]:
    kind = model.get("type", "BPE")
    if kind not in MODELS:
        yield f"its model must be one of {', '.join(MODELS)}"
    if model.get("dropout"):
        yield "dropout would cut the same text differently each time; leave it out"
    for name in ("continuing_subword_prefix", "end_of_word_suffix", "unk_token"):
        most = TOKEN_CHARS if name == "unk_token" else AFFIX_CHARS
        if not isinstance(model.get(name), str | None) or len(model.get(name) or "") > most:
            yield f"{name} must be a text of at most {most} characters"
    word = model.get("max_input_chars_per_word", 100)
    if type(word) is not int or not 0 < word <= WORD_CHARS:
        yield f"max_input_chars_per_word must be a number up to {WORD_CHARS}"
    merges = model.get("merges") or []
    if not isinstance(merges, list) or len(merges) > MOST_MERGES:
        yield f"merges must be a list of at most {MOST_MERGES:,}"
    elif sum(len(text) for merge in merges for text in _parts_of(merge)) > MERGES_CHARS:
        yield f"its merges have more than {MERGES_CHARS:,} characters"
    yield from _vocabulary_faults(model.get("vocab"), vocabulary)


def _parts_of(merge: object) -> list[str]:
    parts = merge if isinstance(merge, list) else [merge]
    return [part for part in parts if isinstance(part, str)]


def _vocabulary_faults(vocab: object, most: int | None) -> Iterator[str]:
    longest = UNIGRAM_CHARS if isinstance(vocab, list) else TOKEN_CHARS
    if isinstance(vocab, list):  # Unigram: tokens and scores in the order of their ids
        tokens = [str(one[0]) for one in vocab if isinstance(one, list) and one]
        vocab = {token: number for number, token in enumerate(tokens)}
    else:
        tokens = list(vocab) if isinstance(vocab, Mapping) else []
    if not isinstance(vocab, Mapping) or len(tokens) > MOST_TOKENS:
        yield f"vocab must have at most {MOST_TOKENS:,} tokens"
        return
    if sum(map(len, tokens)) > VOCABULARY_CHARS:
        yield f"its tokens have more than {VOCABULARY_CHARS:,} characters"
    if any(len(token) > longest for token in vocab):
        yield f"a token has more than {longest:,} characters"
    if not all(type(one) is int and 0 <= one < MOST_ID for one in vocab.values()):
        yield f"ids must be numbers below {MOST_ID:,}"
    elif most is not None and max(vocab.values(), default=0) >= most:
        yield f"its vocabulary has ids beyond the {most:,} of config.json"


def _added_faults(added: object) -> Iterator[str]:
    if not isinstance(added, list) or len(added) > MOST_ADDED:
        yield f"added_tokens must be a list of at most {MOST_ADDED:,}"
    elif not all(_is_added_token(one) for one in added):
        yield f"each added token has an id and a text of 1 to {TOKEN_CHARS:,} characters"
    elif sum(len(one["content"]) for one in added) > ADDED_CHARS:
        yield f"added_tokens have more than {ADDED_CHARS:,} characters"


def _is_added_token(one: object) -> bool:
    if not isinstance(one, Mapping):
        return False
    number, content = one.get("id"), one.get("content")
    fits = isinstance(content, str) and 0 < len(content) <= TOKEN_CHARS
    return fits and type(number) is int and 0 <= number < MOST_ID


def _length_faults(document: Mapping[str, object]) -> Iterator[str]:
    padding, cut = document.get("padding") or {}, document.get("truncation") or {}
    if not isinstance(padding, Mapping) or not isinstance(cut, Mapping):
        yield "padding and truncation must be objects"
        return
    strategy = padding.get("strategy")
    fixed = strategy.get("Fixed") if isinstance(strategy, Mapping) else 0
    for name, value in {
        "padding": fixed,
        "pad_to_multiple_of": padding.get("pad_to_multiple_of") or 0,
        "stride": cut.get("stride", 0),
    }.items():
        if type(value) is not int or not 0 <= value <= _PADDING_TOKENS:
            yield f"{name} must be a number up to {_PADDING_TOKENS:,}"


def _said_chars(document: Mapping[str, object]) -> int:
    """Return the number of characters of all steps except character maps, which have their own bound."""
    said = json.dumps([document.get(part) for part in _PARTS])
    return len(_CHARSMAP.sub("", said))
