"""The device memory that a training needs, from its base model's config alone: no torch, no device.

It is the sum of what a step holds at its peak: weights, the adapter with its gradients and moments, the
inputs of every layer (one layer's activations are recomputed at a time), and the logits. It serves to choose
a device; the training itself measures the available memory.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from nss_train.config.sections.training import TrainingHyperparams
from nss_train.model.layers.heads import CHUNK_TOKENS, DIVIDED_HEADS, PLAIN_HEADS
from nss_train.model.scheme import Scheme

FLOATS_PER_LAYER_TOKEN = 34
"""Activations kept per layer and token, in units of the hidden size (Korthikanti et al. 2022, §4.1: its
fp16 bytes, halved to values and rounded up)."""
LOGIT_BYTES = 3 * 4
"""Bytes per logit: it, its softmax and the gradient are in float32, whatever the model's dtype."""
COMPUTE_BYTES = 2
"""Bytes of a value on a CUDA device: bfloat16 or float16."""
ADAPTER_BYTES = 4 * 4
"""Bytes of a trained parameter: itself, its gradient and Adam's two moments in float32."""
CONTEXT_BYTES = 2**30
"""Bytes of the kernels and workspaces that CUDA holds before a model is loaded."""
PROCESS_BYTES = 800 * 2**20
"""Bytes of a process with torch, transformers and a trainer, before it loads a model."""
FLOAT_BYTES = 4
CPU_LOGIT_BYTES = 4 * FLOAT_BYTES
"""Bytes per logit on a CPU: it, its copy for the loss, its softmax and the gradient."""
MARGIN = 1.25
"""Factor for what the sum omits: fragmentation, and buffers of a quantized layer being unpacked."""
WEIGHT_BYTES = {
    None: 2.0,
    Scheme.BNB_8BIT: 1.0,
    Scheme.FP8: 1.0,
    # A block's scale on top of four bits.
    Scheme.BNB_4BIT: 0.6,
    Scheme.NVFP4: 0.6,
    Scheme.MXFP4: 0.6,
}
"""Bytes of a weight of a layer on a CUDA device."""
_ROWS_AND_COLUMNS = 2
_NEEDED = ("hidden_size", "num_hidden_layers", "vocab_size")


@dataclass(frozen=True, kw_only=True, slots=True)
class Shape:
    """The numbers of a decoder's ``config.json`` that its memory depends on."""

    hidden: int
    layers: int
    vocabulary: int
    intermediate: int
    kv_share: float
    """Key and value heads as a share of the query heads."""
    tied: bool

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> Shape | None:
        """Return the shape in a ``config.json`` or its text part; ``None`` if its fields have other names."""
        found = text_part(config)
        if not all(name in found for name in _NEEDED):
            return None
        hidden = int(found["hidden_size"])
        heads = int(found.get("num_attention_heads", 1))
        return cls(
            hidden=hidden,
            layers=int(found["num_hidden_layers"]),
            vocabulary=int(found["vocab_size"]),
            intermediate=_mean(found.get("intermediate_size") or 4 * hidden),
            kv_share=_mean(found.get("num_key_value_heads") or heads) / heads,
            tied=bool(found.get("tie_word_embeddings", False)),
        )

    @property
    def embedding_parameters(self) -> int:
        return self.vocabulary * self.hidden * (1 if self.tied else 2)

    @property
    def layer_parameters(self) -> int:
        """Return all layers' parameters: attention with four projections, and a gated feed-forward net."""
        attention = (2 + 2 * self.kv_share) * self.hidden**2
        return self.layers * int(attention + 3 * self.hidden * self.intermediate)


def text_part(config: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a ``config.json`` says of its decoder, without nulls: a field that is null is left out."""
    part = config.get("text_config") or config
    return {name: value for name, value in part.items() if value is not None}


def _mean(sizes: int | list[int]) -> int:
    """Return the size of a layer, where each may have its own."""
    return sum(sizes) // len(sizes) if isinstance(sizes, list) else int(sizes)


def training_bytes(
    config: Mapping[str, object], training: TrainingHyperparams, *, tokens: int, scheme: Scheme | None
) -> int | None:
    """Return the bytes for training an adapter on examples of ``tokens`` tokens; ``None`` if unknown."""
    shape = Shape.of(config)
    if shape is None:
        return None
    weights = shape.embedding_parameters * COMPUTE_BYTES + shape.layer_parameters * WEIGHT_BYTES[scheme]
    adapter = ADAPTER_BYTES * adapter_parameters(shape, training)
    kept = (shape.layers + FLOATS_PER_LAYER_TOKEN) * shape.hidden * COMPUTE_BYTES
    step = training.batch_size * tokens * (kept + LOGIT_BYTES * shape.vocabulary)
    return int(MARGIN * (weights + adapter + step)) + CONTEXT_BYTES


def process_bytes(
    config: Mapping[str, object],
    training: TrainingHyperparams,
    *,
    tokens: int,
    rows: int,
    scheme: Scheme | None,
    in_parts: bool,
) -> int | None:
    """Return the peak bytes of a process that trains on a CPU; ``None`` if unknown.

    Micro-batches have ``rows`` sequences of ``tokens`` tokens. A CPU computes in float32 and keeps every
    layer's activations. Logits are those of all tokens, unless the loss is computed ``in_parts``, which
    depends on the model's family too.
    """
    shape = Shape.of(config)
    if shape is None:
        return None
    per_weight = FLOAT_BYTES if scheme is None else WEIGHT_BYTES[scheme]
    weights = shape.embedding_parameters * FLOAT_BYTES + shape.layer_parameters * per_weight
    adapter = ADAPTER_BYTES * adapter_parameters(shape, training)
    kept = FLOATS_PER_LAYER_TOKEN * shape.layers * shape.hidden * FLOAT_BYTES
    in_parts = in_parts and config.get("model_type") in PLAIN_HEADS | DIVIDED_HEADS
    logits = min(rows * tokens, CHUNK_TOKENS["cpu"]) if in_parts else rows * tokens
    step = rows * tokens * kept + logits * CPU_LOGIT_BYTES * shape.vocabulary
    return int(weights + adapter + step) + PROCESS_BYTES


def adapter_parameters(shape: Shape, training: TrainingHyperparams) -> int:
    """Return the most parameters that an adapter on these modules may have."""
    modules = len(training.lora_target_modules) * shape.layers
    return modules * training.lora_r * _ROWS_AND_COLUMNS * max(shape.hidden, shape.intermediate)
