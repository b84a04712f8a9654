"""The files of a base model that are read and copied, and how large they may be. Imports no torch."""

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
    # Gemma 3's is 1.2 MB: it lists its 6,000 added tokens again.
    "tokenizer_config.json": 8 * MIB,
    # Gemma 3's is 33 MB, the largest of the known families.
    "tokenizer.json": 64 * MIB,
    "tokenizer.model": 16 * MIB,
    "vocab.json": 32 * MIB,
    "merges.txt": 32 * MIB,
    # The index of a trillion parameters in 100,000 tensors has 10 MB.
    "model.safetensors.index.json": 32 * MIB,
}
"""Largest size in bytes of each file that is read by name. Sizes follow from published models."""
WEIGHTS = "*.safetensors"
CODE = "*.py"
"""Pattern of code files, read only of models that the operator trusts to run their own code."""


def is_read(name: str, *, trusted: bool = False) -> bool:
    """Tell whether a file of this name, in the model's own folder, is part of the model."""
    if "/" in name or name.startswith("."):
        return False
    return name in DOCUMENT_BYTES or fnmatchcase(name, WEIGHTS) or (trusted and fnmatchcase(name, CODE))
