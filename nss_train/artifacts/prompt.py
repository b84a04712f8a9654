"""The prompt at generation, and the length limits of a completion."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

DEFAULT_MULTIPLIER = 1.2
_DEFAULT_LENGTH = 2048


def schema_prompt(metadata: Mapping[str, Any], columns: Iterable[str]) -> str:
    """Return the prompt as in training, which is NSS's, with the column names unchanged."""
    schema = ",".join(f'"{name}":<unk>' for name in columns)
    template: str = metadata["prompt_config"]["template"]
    return template.format(instruction=metadata["instruction"], schema=schema, prefill="")


def max_seq_length(metadata: Mapping[str, Any]) -> int:
    """Return the adapter's context in tokens: the base length times a rope factor above 1 (§3.3)."""
    factor = (metadata.get("rope_scaling") or {}).get("factor") or 1.0
    return int((metadata["base_max_seq_length"] or _DEFAULT_LENGTH) * max(1.0, factor))


def max_new_tokens(metadata: Mapping[str, Any], prompt_tokens: int, multiplier: float | None) -> int:
    """Return the most tokens of one completion (§3.3); 0 if the prompt fills the context."""
    context = max_seq_length(metadata)
    longest = metadata.get("max_tokens_per_example")
    factor = DEFAULT_MULTIPLIER if multiplier is None else multiplier
    wanted = context if longest is None else int(longest * factor)
    return max(0, min(wanted, context - prompt_tokens))


def first_budget(metadata: Mapping[str, Any], prompt_tokens: int, rows: int, limit: int) -> int:
    """Return the estimated tokens of ``rows`` records, for a first try; at most ``limit``.

    The longest example holds the prompt and up to ``max_sequences_per_example`` records. If a table's
    examples hold fewer, the estimate is too small; the sampler then doubles it.
    """
    longest, sequences = metadata.get("max_tokens_per_example"), metadata.get("max_sequences_per_example")
    if not longest or not sequences:
        return limit
    per_record = max(1.0, (longest - prompt_tokens) / sequences)
    return min(limit, int((rows + 1) * per_record * DEFAULT_MULTIPLIER) + 8)
