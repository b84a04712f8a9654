"""A tokenizer without torch or transformers."""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from nss_train.errors import ParameterError, Problem

IGNORED_LABEL = -100
"""Label of a token that is not learned, as torch's and transformers' losses know it."""
UNREADABLE = -1
"""Id in place of a text that the tokenizer cannot read."""
_STARTS = ('":1', '":"a', '":null', '_x":-1', '1":[')


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTokenizer:
    """A model's fast tokenizer and the special tokens that its config names."""

    backend: Tokenizer
    bos_token: str | None
    eos_token: str | None

    def encode(self, text: str) -> list[int]:
        """Return the ids of a text, without special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

    def encode_all(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, without special tokens."""
        return [found.ids for found in self.backend.encode_batch_fast(texts, add_special_tokens=False)]

    def encode_each(self, texts: Sequence[str]) -> list[list[int]]:
        """Return the ids of each text, whatever the other texts are.

        A text that the tokenizer cannot read has :data:`UNREADABLE` as its only id: a vocabulary may lack a
        character, and the token that would stand for it, too.
        """
        try:
            return self.encode_all(texts)
        except BaseException as error:
            if not _is_of_the_library(error):
                raise
        return list(map(self._encode_if_readable, texts))

    def _encode_if_readable(self, text: str) -> list[int]:
        try:
            return self.encode(text)
        except BaseException as error:
            if not _is_of_the_library(error):
                raise
            return [UNREADABLE]

    @property
    def is_context_free(self) -> bool:
        """Tell whether a text is tokenized equally at the start and after other pre-tokens."""
        return all(self.encode("x" + text)[len(self.encode("x")) :] == self.encode(text) for text in _STARTS)

    def splits_at(self, text: str, cut: int) -> bool:
        """Tell whether no token can span the place before ``text[cut]``, whatever the rest of the text."""
        if self.backend.pre_tokenizer is None:
            # Without pre-tokens only the vocabulary separates two characters.
            return text[cut - 1 : cut + 1] not in self._pairs_of_vocabulary()
        if self.backend.normalizer is not None and self._normalized(text) != self._normalized(
            text[:cut]
        ) + self._normalized(text[cut:]):
            return False
        cuts = {span[0] for _, span in self.backend.pre_tokenizer.pre_tokenize_str(text)}
        return cut in cuts

    def _normalized(self, text: str) -> str:
        return str(self.backend.normalizer.normalize_str(text))

    def _pairs_of_vocabulary(self) -> frozenset[str]:
        return _pairs(self.backend)

    def id_of(self, token: str) -> int | None:
        found = self.backend.token_to_id(token)
        return None if found is None else int(found)


def load_tokenizer(model: Path) -> ModelTokenizer:
    """Read ``tokenizer.json`` and ``tokenizer_config.json`` of a model folder."""
    missing = [name for name in ("tokenizer.json", "tokenizer_config.json") if not (model / name).is_file()]
    if missing:
        remedy = f"the model folder lacks {' and '.join(missing)}; only fast tokenizers are supported"
        problem = Problem(field="training.pretrained_model", value=str(model), remedy=remedy)
        raise ParameterError(f"Could not load model metadata for '{model}'", [problem])
    config = json.loads((model / "tokenizer_config.json").read_text(encoding="utf-8"))
    backend = _backend(model / "tokenizer.json")
    # As in transformers by default: a text's ids depend on no other text of a batch.
    backend.no_padding()
    backend.no_truncation()
    return ModelTokenizer(
        backend=backend,
        bos_token=_content(config.get("bos_token")),
        eos_token=_content(config.get("eos_token")),
    )


def _backend(path: Path) -> Tokenizer:
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # the library has no exception class of its own
        remedy = f"tokenizer.json cannot be read ({str(error)[:200]})"
        problem = Problem(field="training.pretrained_model", value=path.parent.name, remedy=remedy)
        raise ParameterError("The tokenizer cannot be used.", [problem]) from error


def _is_of_the_library(error: BaseException) -> bool:
    """Tell whether the tokenizers library raised an error about a text: it has no class of its own."""
    return type(error) is Exception or type(error).__name__ == "PanicException"


@functools.lru_cache(maxsize=4)
def _pairs(backend: Tokenizer) -> frozenset[str]:
    """Return all pairs of neighbouring characters within tokens."""
    return frozenset(token[i : i + 2] for token in backend.get_vocab() for i in range(len(token) - 1))


def _content(token: str | dict[str, str] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token
