"""The output layers whose loss can be computed in parts. Imports no torch."""

from __future__ import annotations

CHUNK_TOKENS = {"cuda": 2048, "cpu": 128}
"""Tokens whose logits are computed at once. On a GPU fewer are slower; on a CPU more leave its caches."""
PLAIN_HEADS = frozenset({"llama", "mistral", "nemotron", "qwen2", "qwen3", "smollm3"})
"""Model types whose logits are the product of hidden states and the head's weight, and nothing else."""
DIVIDED_HEADS = frozenset({"granite"})
"""Model types that divide this product by their config's ``logits_scaling``."""
