"""Attention that is causal by its kernel alone: nothing is looked for in the tokens of a batch."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from transformers import AttentionInterface, PreTrainedConfig
from transformers.integrations.sdpa_attention import sdpa_attention_forward

WITHOUT_MASK = "sdpa_without_mask"
"""Name of the same kernels without a function that makes their mask."""
_EVERYWHERE = {"full_attention"}


@contextmanager
def without_mask(config: PreTrainedConfig) -> Iterator[None]:
    """Compute ``sdpa`` without making a mask; other attentions stay as they are.

    A decoder that gets no mask looks for several sequences in each row, and waits for the device to know.
    Here a row is one sequence, padded on the right: without a mask ``sdpa`` is causal.
    """
    usual = config._attn_implementation  # noqa: SLF001 (its setter reads the model's source each time)
    if usual != "sdpa" or not _all_before(config):
        yield
        return
    AttentionInterface.register(WITHOUT_MASK, sdpa_attention_forward)
    config._attn_implementation = WITHOUT_MASK  # noqa: SLF001
    try:
        yield
    finally:
        config._attn_implementation = usual  # noqa: SLF001


def _all_before(config: PreTrainedConfig) -> bool:
    """Tell whether each token sees all tokens before it, and none after it, in every layer."""
    kinds = set(getattr(config, "layer_types", None) or _EVERYWHERE)
    window = getattr(config, "sliding_window", None)
    return bool(getattr(config, "is_causal", True)) and window is None and kinds == _EVERYWHERE
