"""The tokenization of many different texts by their repeated pieces: words and, where possible, digits.

This serves columns whose values are nearly all different. A piece ends where the pre-tokenizer ends a
pre-token in every context; these places are found by asking the tokenizer itself.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from nss_train.data.ragged import Offsets, gather, offsets_of
from nss_train.model.tokenizer import UNREADABLE, ModelTokenizer

Tokens = npt.NDArray[np.int32]
Encoded = tuple[Tokens, Offsets]
"""Ids of all texts, and where each text begins; shapes (tokens,) and (texts + 1,)."""

FEW_TEXTS = 256
"""Number of texts below which cutting costs more than it saves."""
_OTHER, _LETTER, _DIGIT, _SPACE, _MARK = range(5)
_EXAMPLES = {_LETTER: ("a", "Z", "s"), _DIGIT: ("0", "7"), _SPACE: (" ",), _MARK: ('"', ".", ",", "-", ":")}


class PieceEncoder:
    """An encoder of lists of texts with one tokenizer."""

    def __init__(self, tokenizer: ModelTokenizer, *, few_texts: int = FEW_TEXTS, alone: bool = False) -> None:
        """Take how many texts are too few to be cut; if ``alone``, no text affects another one's ids."""
        self._tokenizer = tokenizer
        self._encode = tokenizer.encode_each if alone else tokenizer.encode_all
        self._few_texts = few_texts
        self._needs_context = not tokenizer.is_context_free
        self._boundaries = _boundaries(tokenizer)

    def encode(self, texts: list[str], *, context: str) -> Encoded:
        """Return the ids of each text as it is tokenized after ``context``."""
        if self._needs_context and context:
            return self._encode_behind(texts, context)
        if len(texts) < self._few_texts or not self._boundaries.any():
            return self._encode_whole(texts)
        return self._encode_pieces(texts)

    def _encode_whole(self, texts: Sequence[str]) -> Encoded:
        return _joined(self._encode(texts))

    def _encode_behind(self, texts: list[str], context: str) -> Encoded:
        """Encode each text with its context, for tokenizers that treat the start of a text differently."""
        skipped = len(self._tokenizer.encode(context))
        found = self._encode([context + text for text in texts])
        # Text by text: a token that spans the cut leaves one fewer ids than the context has.
        return _joined(ids if ids == [UNREADABLE] else ids[skipped:] for ids in found)

    def _encode_pieces(self, texts: list[str]) -> Encoded:
        joined = pa.array(texts, type=pa.large_string())
        _, offset_buffer, data = joined.buffers()
        bounds = np.frombuffer(offset_buffer, dtype=np.int64)[: len(texts) + 1]
        content = np.frombuffer(data, dtype=np.uint8)[: bounds[-1]]
        starts = self._piece_starts(content, bounds)
        unique, codes = _distinct_pieces(data, starts, len(content))
        ids, offsets = self._encode_whole(unique)
        tokens, lengths = gather(ids, offsets, codes)
        ends = offsets_of(lengths)
        return tokens, ends[np.searchsorted(starts, bounds)]

    def _piece_starts(
        self, content: npt.NDArray[np.uint8], bounds: npt.NDArray[np.int64]
    ) -> npt.NDArray[np.int64]:
        kinds = _KINDS[content]
        inner = np.zeros(len(content), dtype=bool)
        inner[1:] = self._boundaries[kinds[:-1], kinds[1:]]
        # A space belongs to the letters after it, but only a single space between letters does.
        lone = np.zeros(len(content), dtype=bool)
        lone[1:-1] = (kinds[:-2] == _LETTER) & (kinds[1:-1] == _SPACE) & (kinds[2:] == _LETTER)
        inner &= (kinds != _SPACE) | lone
        inner[bounds[:-1]] = True
        return np.flatnonzero(inner)


def _joined(found: Iterable[Sequence[int]]) -> Encoded:
    texts = list(found)
    offsets = offsets_of([len(ids) for ids in texts])
    return np.fromiter((i for ids in texts for i in ids), dtype=np.int32, count=int(offsets[-1])), offsets


def _distinct_pieces(
    data: pa.Buffer, starts: npt.NDArray[np.int64], size: int
) -> tuple[list[str], npt.NDArray[np.int64]]:
    offsets = pa.py_buffer(np.append(starts, size).astype(np.int64))
    pieces = pa.LargeStringArray.from_buffers(len(starts), offsets, data)
    encoded = pieces.dictionary_encode()
    return encoded.dictionary.to_pylist(), encoded.indices.to_numpy().astype(np.int64)


def _kinds() -> npt.NDArray[np.int8]:
    """Return the kind of each byte. Bytes beyond ASCII, quotes and backslashes are never at a boundary."""
    kinds = np.full(256, _OTHER, dtype=np.int8)
    for byte in range(128):
        char = chr(byte)
        if char.isalpha():
            kinds[byte] = _LETTER
        elif char.isdigit():
            kinds[byte] = _DIGIT
        elif char in ".,-:":
            kinds[byte] = _MARK
    kinds[ord(" ")] = _SPACE
    return kinds


_KINDS = _kinds()


def _boundaries(tokenizer: ModelTokenizer) -> npt.NDArray[np.bool_]:
    """Tell between which byte kinds this tokenizer always ends a pre-token; shape (kinds, kinds)."""
    found = np.zeros((5, 5), dtype=bool)
    if not tokenizer.is_context_free:
        return found
    for left, right in ((_DIGIT, _DIGIT), (_MARK, _DIGIT), (_DIGIT, _MARK), (_LETTER, _SPACE)):
        texts = [
            (f"{before}{a}{b}{after}", len(before) + 1)
            for a in _EXAMPLES[left]
            for b in _EXAMPLES[right]
            if a != '"' and b != '"'
            for before in ("x", "1", '"', "a b", "12")
            for after in ("x", "1", '"', "a b", "12")
            if not (right == _SPACE and not after[0].isalpha())
        ]
        found[left, right] = all(tokenizer.splits_at(text, cut) for text, cut in texts)
    return found
