"""A tokenizer without torch or transformers."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from nss_train.errors import ParameterError, Problem


@dataclass(frozen=True, kw_only=True, slots=True)
class ModelTokenizer:
    """A model's fast tokenizer and the special tokens that its config names."""

    backend: Tokenizer
    bos_token: str | None
    eos_token: str | None

    def encode(self, text: str) -> list[int]:
        """Ids of a text, without special tokens."""
        return list(self.backend.encode(text, add_special_tokens=False).ids)

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
    return ModelTokenizer(
        backend=Tokenizer.from_file(str(model / "tokenizer.json")),
        bos_token=_content(config.get("bos_token")),
        eos_token=_content(config.get("eos_token")),
    )


def _content(token: str | dict[str, str] | None) -> str | None:
    return token["content"] if isinstance(token, dict) else token
