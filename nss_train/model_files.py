"""Which files of a base model are read and copied, and how large they may be. Light: no tensor."""

from __future__ import annotations

from collections.abc import Mapping
from fnmatch import fnmatchcase

MIB = 2**20
DOCUMENT_BYTES: Mapping[str, int] = {
    "config.json": MIB,
    "generation_config.json": MIB,
    "special_tokens_map.json": MIB,
    "added_tokens.json": 4 * MIB,
    "chat_template.json": MIB,
    "chat_template.jinja": MIB,
    # Gemma 3's is 1.2 MB, for it lists its 6,000 added tokens again.
    "tokenizer_config.json": 8 * MIB,
    # Gemma 3's is 33 MB, the largest of the known families.
    "tokenizer.json": 64 * MIB,
    "tokenizer.model": 16 * MIB,
    "vocab.json": 32 * MIB,
    "merges.txt": 32 * MIB,
    # One of a trillion parameters in 100,000 tensors has 10 MB.
    "model.safetensors.index.json": 32 * MIB,
}
"""All files by name, each with the most bytes it may have. Sizes follow from published models."""
WEIGHTS = "*.safetensors"
CODE = "*.py"
"""Read only of a model whose name the operator trusts with running its own code."""


def is_read(name: str, *, trusted: bool = False) -> bool:
    """Whether a file of this name, in the model's own folder, is part of the model."""
    if "/" in name or name.startswith("."):
        return False
    return name in DOCUMENT_BYTES or fnmatchcase(name, WEIGHTS) or (trusted and fnmatchcase(name, CODE))
