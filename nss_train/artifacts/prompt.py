"""What the model is given at generation, and for how long it may answer."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DEFAULT_MULTIPLIER = 1.2
_DEFAULT_LENGTH = 2048


def schema_prompt(metadata: Mapping[str, Any], columns: Iterable[str]) -> str:
    """The prompt text, as in training (reference behaviour §4): column names go in as they are."""
    schema = ",".join(f'"{name}":<unk>' for name in columns)
    template: str = metadata["prompt_config"]["template"]
    return template.format(instruction=metadata["instruction"], schema=schema, prefill="")


def max_seq_length(metadata: Mapping[str, Any]) -> int:
    """The adapter's context in tokens: the base length times a rope factor above 1 (§3.3)."""
    factor = (metadata.get("rope_scaling") or {}).get("factor") or 1.0
    return int((metadata["base_max_seq_length"] or _DEFAULT_LENGTH) * max(1.0, factor))


def max_new_tokens(metadata: Mapping[str, Any], prompt_tokens: int, multiplier: float | None) -> int:
    """How many tokens one completion may have (§3.3); 0 when the prompt fills the context."""
    context = max_seq_length(metadata)
    longest = metadata.get("max_tokens_per_example")
    factor = DEFAULT_MULTIPLIER if multiplier is None else multiplier
    wanted = context if longest is None else int(longest * factor)
    return max(0, min(wanted, context - prompt_tokens))


def first_budget(metadata: Mapping[str, Any], prompt_tokens: int, rows: int, limit: int) -> int:
    """Tokens that ``rows`` records should fit in, for a first try; never above ``limit``.

    The longest example holds the prompt and up to ``max_sequences_per_example`` records. A table whose
    examples hold fewer makes this too small; the sampler then doubles it.
    """
    longest, sequences = metadata.get("max_tokens_per_example"), metadata.get("max_sequences_per_example")
    if not longest or not sequences:
        return limit
    per_record = max(1.0, (longest - prompt_tokens) / sequences)
    return min(limit, int((rows + 1) * per_record * DEFAULT_MULTIPLIER) + 8)
